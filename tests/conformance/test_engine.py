"""Every engine, wherever it stores, keeps the same promises."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opsd.backup.share.engine import Damaged, EngineName, Part, StoreVanished
from opsd.backup.share.opening import EngineOptions
from opsd.backup.share.restore import restore_share
from opsd.clients import process
from opsd.errors import OpsdError, PermanentError
from opsd.progress import NoProgress
from opsd.secrets import Secret
from tests.rig import shares
from tests.rig.repositories import s3_repository
from tests.rig.shares import PASSWORD, RUNS, Rig, deadline

pytestmark = pytest.mark.real

KINDS = ("restic", "restic-elsewhere", "restic-s3", "restic-sftp", "rsync", "rsync-ssh")
LOCAL = ("restic", "rsync")
NASTIEST = (b"new\nline.txt", b"back\\slash", b"star*[ab]?.txt", b"latin-\xe9\xff.txt", b"-rf")


def make(kind: str, request: pytest.FixtureRequest, place: Path) -> Rig:
    engine: EngineName = "restic" if kind.startswith("restic") else "rsync"
    request.getfixturevalue(engine)
    share = place / "share"
    if not share.exists():
        shares.build_share(share)
    if kind == "restic-s3":
        os.environ[shares.PASSWORD_REFERENCE.removeprefix("env:")] = PASSWORD
        return Rig(
            path=share,
            repository=s3_repository(request.getfixturevalue("s3_server"), place),
            options=EngineOptions(engine="restic", password=Secret(shares.PASSWORD_REFERENCE)),
            scratch=place / "scratch",
        )
    if kind in {"rsync-ssh", "restic-sftp"}:
        sshd = request.getfixturevalue("sshd")
        address = f"{sshd.user}@{sshd.host}:{sshd.port}/{place}/elsewhere"
        return shares.in_directory(
            engine,
            share,
            place,
            destination=f"{'ssh' if engine == 'rsync' else 'sftp'}://{address}",
            ssh_identity=sshd.identity_file,
            known_hosts=sshd.known_hosts,
        )
    destination = str(place / "elsewhere") if kind == "restic-elsewhere" else ""
    return shares.in_directory(engine, share, place, destination=destination)


@pytest.fixture(params=KINDS)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    return make(request.param, request, tmp_path)


@pytest.fixture(params=LOCAL)
def local(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    return make(request.param, request, tmp_path)


def restore(rig: Rig, target: Path, path: str = "") -> Path:
    compared = restore_share(
        rig.engine,
        rig.before()[0].manifest,
        target=target,
        path=path,
        deadline=deadline(),
        progress=NoProgress(),
    )
    assert compared.matches, compared
    return target


def test_what_was_backed_up_comes_back_as_it_was(rig: Rig, tmp_path: Path) -> None:
    made = rig.back_up()

    restored = restore(rig, tmp_path / "restored")

    assert shares.tree(restored) == shares.tree(rig.path)
    assert made.changed_count == 0
    assert made.manifest.source["files"] == made.seen.found.files


def test_an_unchanged_share_costs_nearly_nothing_and_is_whole(local: Rig, tmp_path: Path) -> None:
    first = local.back_up()

    second = local.back_up()

    assert second.manifest.size_bytes < first.manifest.size_bytes / 2
    assert second.manifest.source["files"] == first.manifest.source["files"]
    assert len(local.snapshots()) == 2
    assert shares.tree(restore(local, tmp_path / "restored")) == shares.tree(local.path)


def test_a_directory_comes_back_under_its_own_name(local: Rig, tmp_path: Path) -> None:
    local.back_up()
    name = "default-odd-pvc-1/dir with 'quote\n"

    restored = restore(local, tmp_path / "restored", name)

    assert shares.tree(restored / "dir with 'quote\n") == shares.tree(local.path / name)
    assert len(list(restored.iterdir())) == 1


def test_a_file_with_any_name_comes_back_alone(local: Rig, tmp_path: Path) -> None:
    manifest = shares.manifest_of(local.copy(), local)
    directory = "default-odd-pvc-1/dir with 'quote\n"
    expected = shares.tree(local.path / directory)

    for number, name in enumerate(NASTIEST):
        target = tmp_path / str(number)
        compared = restore_share(
            local.engine,
            manifest,
            path=f"{directory}/{os.fsdecode(name)}",
            target=target,
            deadline=deadline(),
            progress=NoProgress(),
        )

        assert compared.matches
        assert shares.tree(target) == {name: expected[name]}


def test_a_path_that_is_not_in_the_backup_is_refused(local: Rig, tmp_path: Path) -> None:
    local.back_up()

    with pytest.raises(PermanentError, match="has no default-odd-pvc-1/nope"):
        restore(local, tmp_path / "restored", "default-odd-pvc-1/nope")


def test_all_stored_data_can_be_read_again(local: Rig) -> None:
    local.back_up()
    local.back_up()

    for backup in local.before():
        assert "read" in local.check(backup.manifest)


def test_only_the_named_snapshots_are_forgotten(local: Rig, tmp_path: Path) -> None:
    local.back_up()
    (local.path / "later").write_text("later")
    local.back_up()
    (local.path / "even later").write_text("even later")
    local.back_up()
    newest, middle, oldest = local.before()

    doomed = [str(one.manifest.source["snapshot"]) for one in (oldest, middle)]
    local.engine.forget(doomed, deadline=deadline())
    local.engine.forget(doomed, deadline=deadline())
    local.engine.reclaim(deadline=deadline())

    assert local.snapshots() == (str(newest.manifest.source["snapshot"]),)
    assert shares.tree(restore(local, tmp_path / "restored")) == shares.tree(local.path)
    local.check(newest.manifest)


def test_what_dead_runs_left_is_swept_and_nothing_else(local: Rig) -> None:
    published = str(local.back_up(run_id=RUNS[0]).manifest.source["snapshot"])
    of_dead, of_unknown = local.copy(run_id=RUNS[1]).id, local.copy(run_id=RUNS[2]).id

    removed = local.engine.sweep(
        published={published}, dead_runs=frozenset(RUNS[:2]), deadline=deadline()
    )

    assert of_dead in removed
    assert set(local.snapshots()) == {published, of_unknown}


def test_a_store_that_vanished_is_an_alarm_and_not_made_anew(local: Rig) -> None:
    local.back_up()
    store = Path(local.engine.location)
    store.rename(store.with_name("gone"))

    with pytest.raises(StoreVanished, match="1 backups are listed"):
        local.back_up()

    assert not store.exists()


@pytest.mark.usefixtures("restic")
def test_a_store_that_cannot_be_reached_fails_the_run(tmp_path: Path) -> None:
    shares.build_share(tmp_path / "share")
    nowhere = "s3:http://127.0.0.1:9/bucket"
    rig = shares.in_directory("restic", tmp_path / "share", tmp_path, destination=nowhere)

    with pytest.raises(OpsdError):
        rig.engine.prepare(known=(), damaged=False, deadline=deadline(3))


def test_rot_in_old_data_is_found_by_the_part_that_covers_it(local: Rig) -> None:
    local.back_up()
    rotten = _some_data(local)
    shares.flip(rotten)
    fresh = local.copy()

    with pytest.raises(Damaged):
        local.prove(fresh)

    with pytest.raises(Damaged):
        local.check(local.before()[0].manifest)


def test_rotation_covers_every_file_within_its_parts(local: Rig) -> None:
    local.back_up()
    shares.flip(_some_data(local))
    fresh = local.copy()
    found = 0

    for n in range(1, 6):
        try:
            local.prove(fresh, Part(n=n, of=5))
        except Damaged:
            found += 1

    assert found == 1


def _some_data(rig: Rig) -> Path:
    store = Path(rig.engine.location)
    if rig.engine.kind == "restic":
        return max(shares.files_below(store / "data"), key=lambda one: one.stat().st_size)
    return store / rig.snapshots()[0] / "media-photos-pvc-2" / "img_3.jpg"


def test_no_secret_stands_in_an_argument(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    start = process.Process.__init__

    def spying(self: process.Process, argv: list[str], **options: object) -> None:
        seen.extend(argv)
        start(self, argv, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(process.Process, "__init__", spying)

    rig.back_up()

    assert seen
    secrets = (PASSWORD, *(value.reveal() for value in _store_secrets(rig)))
    assert not [arg for arg in seen for secret in secrets if secret in arg]


def _store_secrets(rig: Rig) -> list[Secret]:
    settings = getattr(rig.repository, "settings", None)
    return [settings.access_key, settings.secret_key] if settings else []


KILLED = """
import sys
from pathlib import Path
from tests.rig import shares
rig = shares.in_directory(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
print("ready", flush=True)
rig.slots = 7
rig.back_up(run_id=shares.RUNS[1])
"""


def kill_and_await_orphans(child: subprocess.Popen[bytes]) -> None:
    """SIGKILL; what it had started dies with it, and is gone when init has noticed.

    Until then restic takes the owner of a lock for alive.
    """
    child.send_signal(signal.SIGSTOP)
    of_threads = Path(f"/proc/{child.pid}/task").glob("*/children")
    orphans = [Path("/proc", pid) for one in of_threads for pid in one.read_text().split()]
    child.send_signal(signal.SIGKILL)
    while any(orphan.exists() for orphan in orphans):
        time.sleep(0.02)


@pytest.mark.parametrize("chance", range(3))
def test_a_killed_run_leaves_nothing_that_counts_and_the_next_one_works(
    local: Rig, tmp_path: Path, chance: int
) -> None:
    local.back_up()
    for number in range(300):
        (local.path / f"new-{number}").write_bytes(os.urandom(20_000))
    argv = [sys.executable, "-c", KILLED, local.engine.kind, str(local.path), str(tmp_path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=root) as child:
        assert child.stdout
        child.stdout.readline()
        time.sleep(random.Random(chance).uniform(0.1, 2.0))  # noqa: S311 - a moment
        kill_and_await_orphans(child)
    published = {str(one.manifest.source["snapshot"]) for one in local.before()}

    local.slots = 20
    again = local.back_up(run_id=RUNS[2])
    published |= {str(again.manifest.source["snapshot"])}
    local.engine.sweep(published=published, dead_runs=frozenset(RUNS[1:2]), deadline=deadline())

    assert set(local.snapshots()) == published
    restored = restore(local, tmp_path / "restored")
    assert shares.tree(restored) == shares.tree(local.path)
    assert not list(Path(local.engine.location).glob(".partial-*"))
