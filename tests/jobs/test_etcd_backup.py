from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from opsd.backup.catalog import Condition
from opsd.backup.directory import DirectoryRepository
from opsd.backup.etcd.drill import drill
from opsd.backup.etcd.settings import EXAMPLE
from opsd.backup.etcd.source import source_of
from opsd.backup.manifest import Level
from opsd.clients.etcd.answers import Hash
from opsd.clients.etcd.member import Etcd
from opsd.errors import TransientError
from opsd.model import Outcome, Severity
from tests.faults import proxy
from tests.faults.proxy import Fault, Kind, Way
from tests.rig import etcds
from tests.rig.etcds import RealEtcd
from tests.rig.planes import SUBJECT, Owner, checks, the

pytestmark = pytest.mark.real
SmallTmpfs = Callable[[str], Path]


@pytest.fixture(scope="module")
def member() -> Iterator[RealEtcd]:
    with etcds.running() as (one,):
        one.fill(50, size_bytes=4000)
        one.put("/registry/secrets/db/login", "canary-of-a-secret " * 50)
        yield one


@pytest.fixture
def owner(tmp_path: Path, member: RealEtcd) -> Owner:
    return Owner(tmp_path, [member.url])


def test_a_control_plane_is_stored_encrypted_and_proven_by_a_restore(owner: Owner) -> None:
    run = owner.run()

    (backup,) = owner.backups()
    assert (run.outcome, checks(run)) == (Outcome.COMPLETED, [])
    assert (backup.condition, backup.level) == (Condition.GOOD, Level.RESTORED)
    assert backup.manifest.encryption == "age"
    assert [artifact.level for artifact in run.artifacts] == ["restored"]
    assert owner.plain_copies() == []


def test_nothing_of_it_lies_plain_in_the_repository(owner: Owner) -> None:
    owner.run()

    content = b"".join((owner.place / "repository" / name).read_bytes() for name in owner.files())
    assert b"canary" not in content
    assert b"age-encryption.org" in content


def test_the_manifest_says_what_it_is(owner: Owner) -> None:
    owner.run()

    source = source_of(owner.backups()[0].manifest)
    assert (source.node, source.address) == ("rpi1", "10.0.0.11")
    assert source.kubernetes_version == "1.36.3"
    assert source.etcd_version.startswith(etcds.NEWEST)
    assert source.members == ("cp1",)
    assert source.promise.keys >= 51
    assert source.missing == ()


def test_without_a_recipient_nothing_is_ever_backed_up(owner: Owner) -> None:
    with pytest.raises(ValidationError, match="never stored unencrypted"):
        owner.table(recipients=[])


def test_to_the_key_of_the_example_nothing_is_encrypted(owner: Owner) -> None:
    run = owner.run(recipients=[EXAMPLE])

    assert run.outcome is Outcome.FAILED
    assert "age-keygen" in run.error
    assert owner.files() == []


def test_a_slot_that_has_a_result_is_not_taken_again(owner: Owner) -> None:
    owner.run()
    before = owner.files()

    again = owner.run()

    assert (again.outcome, again.artifacts) == (Outcome.COMPLETED, ())
    assert owner.files() == before


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(owner: Owner) -> None:
    run = owner.run(dry_run=True)

    assert "would be taken from 127.0.0.1:" in the(run, "dry_run.snapshot").summary
    assert owner.files() == []


def test_a_dry_run_tells_that_a_drill_would_not_be_possible(owner: Owner) -> None:
    run = owner.run(dry_run=True, programs=str(owner.place))

    assert the(run, "etcd.not_drilled").severity is Severity.WARNING
    assert "etcd.not_drilled" not in checks(owner.run(dry_run=True))


def test_a_member_too_slow_for_its_hash_is_backed_up_and_counted(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = Etcd.hash, list[int]()

    def slow(etcd: Etcd, revision: int) -> Hash:
        asked.append(revision)
        if len(asked) == 1:
            raise TransientError("fell silent")
        return real(etcd, revision)

    monkeypatch.setattr(Etcd, "hash", slow)

    run = owner.run()

    assert checks(run) == []
    assert source_of(owner.backups()[0].manifest).promise.hash is None
    assert "counted only" in owner.backups()[0].verifications[-1].detail


def test_without_a_drill_it_is_stored_and_no_plain_copy_is_made(owner: Owner) -> None:
    run = owner.run(drill=False)

    assert checks(run) == []
    assert owner.backups()[0].level is Level.PARSED
    assert list(owner.scratch.iterdir()) == []


def test_without_the_programs_it_is_stored_and_told_that_nobody_tried_it(owner: Owner) -> None:
    run = owner.run(programs=str(owner.place))

    assert run.outcome is Outcome.COMPLETED
    assert "etcd and etcdutl not found" in the(run, "etcd.not_drilled").facts["error"]  # type: ignore[operator]
    assert owner.backups()[0].level is Level.PARSED


def test_a_scratch_that_is_too_small_costs_the_drill_and_not_the_backup(
    owner: Owner, small_tmpfs: SmallTmpfs
) -> None:
    small = small_tmpfs("64k")

    run = owner.run(drill_dir=str(small))

    assert run.outcome is Outcome.COMPLETED
    assert "No space left" in str(the(run, "etcd.not_drilled").facts["error"])
    assert owner.backups()[0].condition is Condition.GOOD
    assert list(small.iterdir()) == []


@pytest.mark.parametrize("name", ["etc/kubernetes/pki/sa.key", "var/lib/kubelet/config.yaml"])
def test_a_file_that_a_rebuild_needs_and_is_not_there_is_told(owner: Owner, name: str) -> None:
    (owner.root / name).unlink()

    told = the(owner.run(), "etcd.files_missing")
    accepted = owner.run(day=1, absent=[f"/{name}"])

    assert told.facts["missing"] == f"/{name}"
    assert checks(accepted) == []


def test_a_key_file_that_a_flag_names_elsewhere_is_in_it_or_missed(owner: Owner) -> None:
    manifest = owner.root / "etc/kubernetes/manifests/kube-apiserver.yaml"
    flag = "    - --encryption-provider-config=/srv/keys/enc.yaml\n    image:"
    manifest.write_text(manifest.read_text().replace("    image:", flag))

    without = owner.run()
    (owner.root / "srv/keys").mkdir(parents=True)
    (owner.root / "srv/keys/enc.yaml").write_text("canary-of-the-key\n")
    with_it = owner.run(day=1)

    assert the(without, "etcd.files_missing").facts["missing"] == "/srv/keys/enc.yaml"
    assert checks(with_it) == []
    sources = [source_of(one.manifest) for one in owner.backups()]
    assert sources[0].encrypts_secrets
    assert sources[0].files == sources[1].files + 1


def test_without_the_nodes_files_etcd_alone_is_stored_and_told(owner: Owner) -> None:
    run = owner.run(host_root=None)

    assert the(run, "etcd.files_missing").severity is Severity.WARNING
    assert owner.backups()[0].level is Level.RESTORED


def test_a_member_that_is_frozen_is_told_and_another_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opsd.clients.etcd.exchange.READ_S", 3.0)
    with etcds.running(members=3) as members:
        first, *others = members
        first.fill(5)
        owner = Owner(tmp_path, [one.url for one in members])
        first.freeze()
        others[0].server.await_ready(lambda: leads(others[0]))

        run = owner.run(within_s=110)

    assert run.outcome is Outcome.COMPLETED
    assert "fell silent" in the(run, "etcd.member_unreachable").summary
    assert run.unseen == (f"{SUBJECT}/127.0.0.1=3A{first.port}",)
    assert source_of(owner.backups()[0].manifest).members == ("cp1", "cp2", "cp3")


def leads(member: RealEtcd) -> bool:
    """Whether it sees a leader that is not frozen: a read gets through."""
    try:
        member.client(within_s=3).count()
    except Exception:  # noqa: BLE001 - not yet
        return False
    return True


def test_a_member_without_a_majority_is_never_the_one_that_is_taken(tmp_path: Path) -> None:
    with etcds.running(members=3) as members:
        members[0].fill(5)
        owner = Owner(tmp_path, [members[0].url])
        for one in members[1:]:
            one.server.kill()

        run = owner.run(within_s=100)

    assert run.outcome is Outcome.FAILED
    assert the(run, "etcd.backup_failed").severity is Severity.CRITICAL
    assert the(run, "backup.not_covered").subject == SUBJECT
    assert owner.files() == []


def test_a_learner_is_told_and_not_taken(tmp_path: Path) -> None:
    with etcds.running(members=1) as (voter,):
        voter.fill(5)
        learner = RealEtcd(name="late", home=voter.home, release=voter.release)
        voter.call("/v3/cluster/member/add", {"peerURLs": [learner.peer_url], "isLearner": True})
        learner.start([voter, learner], "--initial-cluster-state=existing")
        learner.await_ready()
        try:
            owner = Owner(tmp_path, [learner.url, voter.url])

            run = owner.run()
        finally:
            learner.server.kill()

    assert run.outcome is Outcome.COMPLETED
    assert "has not all of the data" in the(run, "etcd.member_unreachable").summary
    assert the(run, "etcd.member_unhealthy").subject == f"{SUBJECT}/late"


def test_an_alarm_and_a_full_database_are_told_and_it_is_backed_up_all_the_same(
    tmp_path: Path,
) -> None:
    with etcds.running(more=["--quota-backend-bytes=1000000"]) as (member,):
        with pytest.raises(OSError, match="HTTP Error"):  # it is full
            member.fill(1000, size_bytes=8000)
        owner = Owner(tmp_path, [member.url])

        run = owner.run()

    assert the(run, "etcd.alarm").facts["alarm"] == "NOSPACE"
    assert the(run, "etcd.alarm").severity is Severity.CRITICAL
    assert the(run, "etcd.space_low").facts["quota_bytes"] == 1000000
    assert owner.backups()[0].level is Level.RESTORED


def test_a_stream_that_is_cut_leaves_nothing_and_keeps_older_backups(
    owner: Owner, member: RealEtcd
) -> None:
    owner.run()
    before = owner.files()

    for day, after_bytes in enumerate((20_000, 60_000), start=1):
        with proxy.in_front_of(member.port) as wire:
            wire.set(Fault(kind=Kind.CUT, way=Way.TO_CLIENT, after_bytes=after_bytes))
            run = owner.run(day=day, endpoints=[f"http://127.0.0.1:{wire.port}"])

        assert run.outcome is Outcome.FAILED
        assert the(run, "etcd.backup_failed").subject == SUBJECT
    assert owner.files() == before
    assert owner.plain_copies() == []


def test_a_flipped_bit_on_the_way_is_found_before_anything_is_published(
    owner: Owner, member: RealEtcd
) -> None:
    with proxy.in_front_of(member.port) as wire:
        wire.set(Fault(kind=Kind.CORRUPT, way=Way.TO_CLIENT, after_bytes=30_000))
        run = owner.run(endpoints=[f"http://127.0.0.1:{wire.port}"])

    assert run.outcome is Outcome.FAILED
    assert owner.files() == []


def test_what_a_killed_drill_left_is_removed_by_the_next_run(owner: Owner) -> None:
    left = owner.scratch / "opsd-etcd-drill"
    left.mkdir()
    (left / "snapshot.db").write_text("canary")

    owner.run()

    assert list(owner.scratch.iterdir()) == []


def test_one_repository_that_fails_stops_no_other(owner: Owner, tmp_path: Path) -> None:
    gone = DirectoryRepository("gone", tmp_path / "nowhere")
    owner.settings["repositories"] = ["gone", "disk"]

    run = owner.run(repositories=(owner.repository, gone))

    assert run.outcome is Outcome.FAILED
    assert the(run, "repository.unreachable").subject == "repository/gone"
    assert owner.backups()[0].level is Level.RESTORED


def test_old_backups_go_only_after_a_good_one(owner: Owner) -> None:
    keep = {"last": 1, "daily": 0, "weekly": 0, "monthly": 0, "minimum": 1}
    for day in range(2):
        owner.run(day=day, keep=keep)

    run = owner.run(day=2, keep=keep, endpoints=["http://127.0.0.1:1"])

    assert run.outcome is Outcome.FAILED
    assert [one.manifest.run_id for one in owner.backups()] == [f"{101:012x}"]


def test_the_file_modes_of_the_drill_keep_others_out(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = drill

    def look(*args: object, **options: object) -> object:
        place = owner.scratch / "opsd-etcd-drill"
        seen.extend(path.stat().st_mode & 0o077 for path in (place, place / "snapshot.db"))
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("opsd.backup.etcd.bench.drill", look)
    previous = os.umask(0)
    try:
        owner.run()
    finally:
        os.umask(previous)

    assert seen == [0, 0]
