"""etcd-backup is killed, cut, lied to and frozen: nothing plain stays, nothing bad appears."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from opsd.backup.catalog import Condition, read_catalog
from opsd.backup.etcd.drill import drill
from opsd.backup.etcd.source import Promise, source_of
from opsd.backup.etcd.taking import promised
from opsd.backup.etcd.tools import installed
from opsd.backup.manifest import Level, Verification
from opsd.clients.process import run as run_program
from opsd.clock import Deadline, SystemClock
from opsd.errors import PermanentError
from opsd.model import Outcome
from opsd.secrets import Secret
from tests.faults import proxy
from tests.faults.failpoints import Failpoint, command
from tests.faults.proxy import MUTE, Fault, Kind, Way
from tests.rig import etcds
from tests.rig.etcds import RELEASES, RealEtcd
from tests.rig.home import Home
from tests.rig.planes import SUBJECT, Owner, checks, the

pytestmark = pytest.mark.real

STEPS = {
    "before the cluster is asked": Failpoint(at="opsd.backup.etcd.taking:promised", do="kill"),
    "in the middle of the stream": Failpoint(
        at="opsd.backup.etcd.snapshot:SnapshotCheck.feed", nth=3, do="kill"
    ),
    "at its end": Failpoint(at="opsd.backup.etcd.snapshot:SnapshotCheck.finish", do="kill"),
    "when it is stored": Failpoint(
        at="opsd.backup.directory:_DirectoryUpload.commit", when="after", do="kill"
    ),
    "when it is published": Failpoint(at="opsd.backup.catalog:publish", when="after", do="kill"),
    "when it is restored": Failpoint(
        at="opsd.backup.etcd.drill:_restore", when="after", do="kill"
    ),
    "while it is compared": Failpoint(at="opsd.backup.etcd.drill:compared", do="kill"),
    "before that is recorded": Failpoint(at="opsd.backup.catalog:record_verification", do="kill"),
}


@pytest.fixture(scope="module")
def member() -> Iterator[RealEtcd]:
    with etcds.running() as (one,):
        one.fill(100, size_bytes=4000)
        yield one


@pytest.fixture
def owner(tmp_path: Path, member: RealEtcd) -> Owner:
    return Owner(tmp_path, [member.url])


def installation(owner: Owner) -> Home:
    home = Home(owner.place)
    table = owner.table()
    home.write(
        f"""
[jobs.etcd-backup]
repositories = ["disk"]
recipients = ["{table.recipients[0]}"]
endpoints = ["{table.endpoints[0]}"]
host_root = "{table.host_root}"
programs = "{table.programs}"
"""
    )
    return home


def plain_files(place: Path) -> list[Path]:
    return [path for path in (place / "state/scratch").rglob("*") if path.is_file()]


def drills_under_way(place: Path) -> list[str]:
    """Processes of drills below `place`; a defunct one has no command line."""
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if "opsd-etcd-drill" in line and str(place) in line:
                lines.append(line)
    return lines


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_nothing_bad_is_published_and_the_next_run_clears_up(
    owner: Owner, step: str
) -> None:
    home = installation(owner)

    killed = home.opsd("run-job", "etcd-backup", launcher=command(STEPS[step]))
    between = read_catalog(owner.repository).series(SUBJECT)
    again = home.opsd("run-job", "etcd-backup")

    assert killed.status == -9, killed.err
    assert all(one.condition is Condition.GOOD for one in between)
    assert again.status == 0, again.err
    assert plain_files(owner.place) == []
    assert drills_under_way(owner.place) == []
    assert owner.backups()[0].level is Level.RESTORED
    assert not [name for name in owner.files() if "partial" in name or name.endswith(".part")]


def test_etcd_that_freezes_in_the_stream_ends_with_the_deadline_and_leaves_nothing(
    owner: Owner, member: RealEtcd
) -> None:
    with proxy.in_front_of(member.port) as wire:
        wire.set(Fault(kind=Kind.STALL, way=Way.TO_CLIENT, after_bytes=50_000))
        run = owner.run(within_s=4, endpoints=[f"http://127.0.0.1:{wire.port}"])

    assert run.outcome is Outcome.TIMED_OUT
    assert owner.files() == []
    assert owner.plain_copies() == []


def test_etcd_that_falls_silent_is_given_up_before_the_deadline(
    owner: Owner, member: RealEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opsd.clients.etcd.exchange.READ_S", 1.0)
    with proxy.in_front_of(member.port) as wire:
        wire.set(MUTE)
        run = owner.run(endpoints=[f"http://127.0.0.1:{wire.port}"])

    assert run.outcome is Outcome.FAILED
    assert run.may_pass
    assert "fell silent" in the(run, "etcd.backup_failed").summary


def test_a_wrong_key_is_told_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with etcds.running(tls=True) as (member,):
        assert member.tls
        stranger = member.tls.identity(signed_by=trustme.CA())
        for name in ("authority", "certificate", "key"):
            monkeypatch.setenv(f"ETCD_{name.upper()}", getattr(stranger, name))
        owner = Owner(tmp_path, [member.url])

        run = owner.run(
            ca=Secret("env:ETCD_AUTHORITY"),
            certificate=Secret("env:ETCD_CERTIFICATE"),
            key=Secret("env:ETCD_KEY"),
        )

        told = str(the(run, "etcd.backup_failed").facts)
        assert "certificate that opsd shows" in told
        assert stranger.key.splitlines()[1] not in f"{run}"


def test_a_snapshot_that_etcdutl_calls_fine_is_refused_when_it_was_cut(
    owner: Owner, member: RealEtcd
) -> None:
    cut = owner.place / "cut.db"
    with member.client().snapshot() as snapshot:
        cut.write_bytes(b"".join(snapshot.pieces)[:-32])
    deadline = Deadline.after(60, SystemClock())
    tools = installed(etcds.programs(), deadline=deadline)

    status = run_program([tools.etcdutl, "snapshot", "status", str(cut)], deadline=deadline)
    verdict = drilled(cut, promised(member.client()), owner, release=etcds.NEWEST)

    assert status.returncode == 0  # why it is not asked
    assert (verdict.ok, verdict.level) == (False, "restored")


@pytest.mark.parametrize("changed", ["keys", "hash", "revision"])
def test_a_snapshot_that_lacks_something_fails_its_drill(
    owner: Owner, member: RealEtcd, changed: str
) -> None:
    whole = snapshot_of(member, owner.place / "whole.db")
    promise = promised(member.client())
    other = changed_in(promise, changed, getattr(promise, changed) + 1)

    verdict = drilled(whole, other, owner, release=etcds.NEWEST)
    right = drilled(whole, promise, owner, release=etcds.NEWEST)

    assert not verdict.ok
    assert right.ok, right.detail
    assert f"{promise.keys} keys as in the cluster" in right.detail


def changed_in(promise: Promise, name: str, value: int) -> Promise:
    fields = {each: getattr(promise, each) for each in promise.__struct_fields__}
    return Promise(**{**fields, name: value})


def test_a_drill_that_fails_is_critical_and_removes_no_older_backup(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = {"last": 1, "daily": 0, "weekly": 0, "monthly": 0, "minimum": 1}
    for day in range(3):
        owner.run(day=day)
    monkeypatch.setattr(
        "opsd.backup.etcd.taking.promised",
        lambda etcd: changed_in(promised(etcd), "keys", 7),
    )

    run = owner.run(day=3, keep=keep)

    assert run.outcome is Outcome.FAILED
    assert "7 were promised" in the(run, "etcd.drill_failed").summary
    conditions = [one.condition for one in owner.backups()]
    assert conditions == [Condition.FAILED, *(Condition.GOOD,) * 3]


@pytest.mark.parametrize("release", RELEASES)
def test_the_newest_programs_restore_what_every_release_wrote(
    tmp_path: Path, release: str
) -> None:
    with etcds.running(release) as (member,):
        member.fill(10)
        owner = Owner(tmp_path, [member.url])

        run = owner.run()

    assert checks(run) == []
    assert source_of(owner.backups()[0].manifest).etcd_version.startswith(release)
    assert owner.backups()[0].level is Level.RESTORED


def test_programs_that_are_too_old_say_nothing_about_the_snapshot(
    owner: Owner, member: RealEtcd
) -> None:
    whole = snapshot_of(member, owner.place / "whole.db")

    with pytest.raises(PermanentError, match=r"etcd 3\.6\.\d+ is here, the cluster has 3\.7"):
        drilled(whole, promised(member.client()), owner, release="3.6")


def snapshot_of(member: RealEtcd, path: Path) -> Path:
    with member.client().snapshot() as snapshot:
        path.write_bytes(b"".join(snapshot.pieces))
    return path


def drilled(snapshot: Path, promise: Promise, owner: Owner, *, release: str) -> Verification:
    deadline = Deadline.after(100, SystemClock())
    return drill(
        snapshot,
        promise,
        installed(etcds.programs(release), deadline=deadline),
        taken_from="3.7.3",
        folder=owner.scratch / "drill",
        deadline=deadline,
    )


@pytest.mark.parametrize("lost", [1, 1000])
def test_a_stored_backup_that_was_cut_or_changed_is_not_restored(owner: Owner, lost: int) -> None:
    home = installation(owner)
    home.opsd("run-job", "etcd-backup")
    options = ("--identity", str(owner.identity_file))
    good = home.opsd("backups", "verify", "etcd/main", "--restore", *options)
    (path,) = (owner.place / "repository").rglob("*.age")
    content = bytearray(path.read_bytes())
    content[-lost] ^= 1
    path.write_bytes(content)

    verified = home.opsd("backups", "verify", "etcd/main", "--restore", *options)
    restored = home.opsd(
        "backups", "restore", "etcd/main", "--to", str(owner.place / "back"), *options
    )

    assert (good.status, verified.status, restored.status) == (0, 1, 1)
    assert "DAMAGED" in verified.out
    assert not (owner.place / "back").exists()
    assert not list(owner.place.glob(".back*"))
