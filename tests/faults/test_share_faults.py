"""Faults of shares and stores, caused for real. None is green, none costs an older backup."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opsd.backup.share import guards as looking
from opsd.backup.share.backup import Refused
from opsd.backup.share.engine import Damaged, Incomplete
from opsd.backup.share.guards import Share, ShareHangs
from opsd.clients.process import run
from opsd.errors import OpsdError, PermanentError, TransientError
from opsd.progress import NoProgress
from tests.rig import shares
from tests.rig.shares import PASSWORD_REFERENCE, RUNS, Rig, deadline

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("restic", "rsync")]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and changes users: root only")


@pytest.fixture(params=["restic", "rsync"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    shares.build_share(tmp_path / "share")
    return shares.in_directory(request.param, tmp_path / "share", tmp_path)


def test_an_emptied_source_is_refused_and_the_backup_stays(rig: Rig) -> None:
    rig.back_up()
    rig.path.rename(rig.path.with_name("moved"))
    rig.path.mkdir()

    with pytest.raises(Refused) as refused:
        rig.back_up()

    assert refused.value.finding.check == "nfs.empty"
    assert len(rig.before()) == len(rig.snapshots()) == 1
    rig.check(rig.before()[0].manifest)


def test_a_source_that_is_gone_is_a_failure(rig: Rig) -> None:
    rig.path.rename(rig.path.with_name("moved"))

    with pytest.raises(TransientError, match="No such file"):
        rig.back_up()

    assert rig.before() == ()


@as_root
def test_an_unmounted_share_is_refused(rig: Rig, small_tmpfs: Callable[[str], Path]) -> None:
    rig.path = small_tmpfs("8m")
    shares.build_share(rig.path / "volume")
    rig.configure(mounted=True)
    rig.back_up()
    subprocess.run(["umount", rig.path], check=True)
    try:
        with pytest.raises(Refused) as refused:
            rig.back_up()
    finally:
        subprocess.run(["mount", "-t", "tmpfs", "none", rig.path], check=True)

    assert refused.value.finding.check == "nfs.not_mounted"
    assert len(rig.before()) == 1


@as_root
def test_a_share_that_is_unmounted_under_the_engine_is_no_success(
    rig: Rig, small_tmpfs: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.path = small_tmpfs("8m")
    shares.build_share(rig.path / "volume")
    rig.configure(mounted=False)
    copy = type(rig.engine).copy

    def unmounting(engine: object, source: object, **options: object) -> object:
        subprocess.run(["umount", rig.path], check=True)
        try:
            return copy(engine, source, **options)  # type: ignore[arg-type]
        finally:
            subprocess.run(["mount", "-t", "tmpfs", "none", rig.path], check=True)

    monkeypatch.setattr(type(rig.engine), "copy", unmounting)

    with pytest.raises(Incomplete, match="unmounted"):
        rig.back_up()

    assert rig.before() == ()


UNREADABLE = """
import os, sys
from pathlib import Path
from tests.rig import shares
from opsd.backup.share.backup import Refused
rig = shares.in_directory(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
try:
    rig.back_up()
except Refused as exc:
    print(exc.finding.check, exc.finding.remedy, sep="|")
"""


@as_root
@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_this_user_may_not_read_is_refused_with_a_remedy(
    rig: Rig, tmp_path: Path, what: str
) -> None:
    secret = rig.path / "media-photos-pvc-2" / ("private" if what == "file" else "nothing")
    secret.chmod(0)
    os.chown(secret, 4711, 4711)
    os.utime(secret, (2e9, 2e9))
    powers = "-dac_override,-dac_read_search"  # root without them is what root_squash leaves
    done = subprocess.run(
        [
            *("setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}"),
            *(sys.executable, "-c", UNREADABLE, rig.engine.kind, rig.path, tmp_path),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )

    check, _, remedy = done.stdout.strip().partition("|")
    assert (check, done.stderr) == ("nfs.unreadable", "")
    assert "the file system refuses root" in remedy


def test_root_squash_gets_the_line_for_the_exports(tmp_path: Path) -> None:
    share = Share(name="nfs", path=tmp_path)
    mount = looking.Mount(point=str(tmp_path), kind="nfs4", source="nas:/srv/nfs", here=True)
    probed = looking.Probed(mount=mount, entries=1, sentinel=True, as_root=True)
    found = looking.Inventory(
        files=1,
        size_bytes=1,
        directories=1,
        others=0,
        newest_ctime_ns=1,
        unreadable=("a/b",),
        unreadable_count=1,
    )

    finding = looking.refuse_scanned(share, found, probed=probed, last=None)

    assert finding
    assert "On nas in /etc/exports: /srv/nfs " in finding.remedy
    assert "no_root_squash" in finding.remedy


def test_files_that_change_and_vanish_are_copied_again_and_listed(rig: Rig) -> None:
    with shares.churning(rig.path / "busy"):
        made = rig.back_up()

    assert made.manifest.source["attempts"] == 2
    assert made.changed_count > 0
    assert all(name.startswith("busy/") for name in made.changed)
    assert len(rig.snapshots()) == 1
    rig.check(made.manifest)


def test_a_file_that_changed_once_is_whole_in_the_second_copy(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing = rig.path / "late"
    changing.write_text("before")
    copy, calls = type(rig.engine).copy, []

    def copying(engine: object, source: object, **options: object) -> object:
        made = copy(engine, source, **options)  # type: ignore[arg-type]
        calls.append(made)
        if len(calls) == 1:
            changing.write_text("after!")
        return made

    monkeypatch.setattr(type(rig.engine), "copy", copying)

    made = rig.back_up()

    assert (made.manifest.source["attempts"], made.changed_count) == (2, 0)
    out = rig.scratch / "out"
    out.mkdir()
    rig.engine.extract_files(calls[-1].id, ["late"], target=out, deadline=deadline())
    assert (out / "late").read_text() == "after!"


@as_root
def test_a_hanging_share_is_left_behind_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with frozen_file_system(tmp_path / "mount"):
        monkeypatch.setattr(looking, "PROBE_S", 2.0)

        with pytest.raises(ShareHangs, match="does not answer"):
            looking.probe(
                Share(name="nfs", path=tmp_path / "mount"),
                clock=shares.CLOCK,
                deadline=deadline(),
            )


@contextlib.contextmanager
def frozen_file_system(point: Path) -> Iterator[None]:
    """A FUSE mount that nobody serves: what touches it sleeps in the kernel, as on a dead NAS.

    The kernel ends it with the descriptor, so it cannot outlive this process.
    """
    point.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={descriptor},rootmode=40000,user_id=0,group_id=0".encode()
    try:
        failed = libc.mount(b"frozen", os.fsencode(point), b"fuse", 0, options)
        assert not failed, os.strerror(ctypes.get_errno())
        yield
    finally:
        os.close(descriptor)
        subprocess.run(["umount", "--lazy", point], check=False)


def test_a_wrong_password_is_said_and_nothing_is_made(tmp_path: Path) -> None:
    shares.build_share(tmp_path / "share")
    rig = shares.in_directory("restic", tmp_path / "share", tmp_path)
    rig.back_up()
    os.environ[PASSWORD_REFERENCE.removeprefix("env:")] = "wrong canary"

    with pytest.raises(PermanentError, match="wrong password") as refused:
        rig.back_up()

    assert "wrong canary" not in str(refused.value)
    os.environ[PASSWORD_REFERENCE.removeprefix("env:")] = shares.PASSWORD
    assert len(rig.snapshots()) == len(rig.before()) == 1


def test_the_lock_of_a_killed_restic_does_not_stop_the_next_run(tmp_path: Path) -> None:
    shares.build_share(tmp_path / "share")
    (tmp_path / "share/large").write_bytes(os.urandom(40 << 20))
    rig = shares.in_directory("restic", tmp_path / "share", tmp_path)
    rig.engine.prepare(known=(), damaged=False, deadline=deadline())
    store = Path(rig.engine.location)
    argv = ["restic", "-r", str(store), "--limit-upload", "1", "backup", str(rig.path)]
    environment = os.environ | {"RESTIC_PASSWORD": shares.PASSWORD, "HOME": str(tmp_path)}
    with subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL) as restic:
        while not list((store / "locks").iterdir()):
            time.sleep(0.05)
        restic.kill()
    assert list((store / "locks").iterdir())

    made = rig.back_up()

    assert rig.before()[0].manifest == made.manifest
    assert not list((store / "locks").iterdir())


def test_rot_in_what_was_just_stored_is_found_before_it_is_published(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    prove = type(rig.engine).prove

    def rotting(engine: object, snapshot: object, **options: object) -> str:
        shares.flip(_newest_data(rig))
        return prove(engine, snapshot, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(type(rig.engine), "prove", rotting)

    with pytest.raises(Damaged):
        rig.back_up()

    assert rig.before() == ()


def _newest_data(rig: Rig) -> Path:
    store = Path(rig.engine.location)
    if rig.engine.kind == "restic":
        return max(shares.files_below(store / "data"), key=lambda one: one.stat().st_size)
    # Behind the read-back of `copy` only files of the part that is due are read: damage all.
    for path in shares.files_below(store / rig.snapshots()[0]):
        if path.stat().st_size:
            shares.flip(path)
    return store / rig.snapshots()[0] / "media-photos-pvc-2/img_3.jpg"


@as_root
def test_a_full_store_fails_the_run_and_keeps_the_older_backup(
    rig: Rig, small_tmpfs: Callable[[str], Path], tmp_path: Path
) -> None:
    disk = small_tmpfs("4m")
    full = shares.in_directory(rig.engine.kind, rig.path, disk)
    full.scratch = tmp_path / "scratch"
    full.scratch.mkdir(exist_ok=True)
    full.configure()
    full.back_up()
    (rig.path / "large").write_bytes(os.urandom(8 << 20))

    with pytest.raises(OpsdError) as failed:
        full.back_up(run_id=RUNS[1])

    assert "space" in str(failed.value)
    assert len(full.before()) == 1
    (rig.path / "large").unlink()
    full.engine.sweep(
        published={str(full.before()[0].manifest.source["snapshot"])},
        dead_runs=frozenset({RUNS[1]}),
        deadline=deadline(),
    )
    full.check(full.before()[0].manifest)


def test_an_old_restic_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "bin" / "restic"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'restic 0.17.0 compiled with go1.19 on linux/amd64'\n")
    old.chmod(0o755)
    shares.build_share(tmp_path / "share")
    rig = shares.in_directory("restic", tmp_path / "share", tmp_path)
    monkeypatch.setenv("PATH", f"{old.parent}:{os.environ['PATH']}")

    with pytest.raises(PermanentError, match=r"0\.17\.0 is too old"):
        rig.back_up()


def test_nothing_is_left_running(rig: Rig) -> None:
    rig.back_up()

    done = run(
        ["pgrep", "-P", str(os.getpid()), "-f", "restic|rsync|share/walk"], deadline=deadline()
    )

    assert done.stdout == b""
    looking.scan(rig.share, deadline=deadline(), progress=NoProgress(), sample_files=0)
