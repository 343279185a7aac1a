"""Faults of a share and of its store in whole runs, with both engines at once."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.rig import scratch, shares
from tests.rig import sink as http_sink
from tests.rig.home import Done, Home
from tests.rig.sink import Sink

pytestmark = [
    pytest.mark.real,
    pytest.mark.usefixtures("restic", "rsync"),
]
BOTH = {"share/restic", "share/rsync"}
Break = Callable[[Home], contextlib.AbstractContextManager[None]]


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with http_sink.running() as running:
        yield running


@pytest.fixture(scope="module")
def home(sink: Sink) -> Iterator[Home]:
    """An installation with a good backup of the share by each engine."""
    with scratch.directory("share-run") as place:
        home = Home(place=place)
        home.fill_share()
        home.write(home.shares("restic", "rsync"), alerts=sink.url.replace("http", "json"))
        assert home.opsd("run-job", "nfs-backup").status == 0
        yield home


def store(home: Home) -> Path:
    """Where restic keeps its data."""
    return home.repository / "restic/restic"


def told(done: Done) -> dict[str, tuple[str, str]]:
    """Check and full text of every finding, by subject."""
    [run] = done.json["runs"]
    return {
        one["subject"]: (one["check"], f"{one['summary']} {one['facts'].get('error', '')}")
        for one in run["findings"]
    }


@contextlib.contextmanager
def emptied(home: Home) -> Iterator[None]:
    home.share.rename(home.place / "moved")
    home.share.mkdir()
    yield
    home.share.rmdir()
    (home.place / "moved").rename(home.share)


@contextlib.contextmanager
def gone(home: Home) -> Iterator[None]:
    home.share.rename(home.place / "moved")
    yield
    (home.place / "moved").rename(home.share)


@contextlib.contextmanager
def not_mounted(home: Home) -> Iterator[None]:
    config = home.config.read_text()
    home.config.write_text(config.replace("mounted = false", "mounted = true"))
    yield
    home.config.write_text(config)


@pytest.mark.parametrize(
    ("broken", "check"),
    [(emptied, "nfs.empty"), (gone, "nfs.backup_failed"), (not_mounted, "nfs.not_mounted")],
)
def test_a_share_that_is_not_there_fails_the_run_and_costs_nothing(
    home: Home, sink: Sink, broken: Break, check: str
) -> None:
    before, messages = home.good_backups(), len(sink.requests)

    with broken(home):
        done = home.opsd("run-job", "nfs-backup", "-o", "json")

    assert done.status == 1
    assert {subject: one[0] for subject, one in told(done).items()} == dict.fromkeys(BOTH, check)
    assert home.good_backups() == before
    assert home.leftovers() == []
    assert len(sink.wait_for(messages + 1)) == messages + 1, "one message, not one per share"


def test_files_that_change_and_vanish_are_a_finding_and_the_backup_is_good(home: Home) -> None:
    before = home.good_backups()

    with shares.churning(home.share / "busy", pause_s=0.005):
        done = home.opsd("run-job", "nfs-backup", "--fail-on", "warning", "-o", "json")

    assert done.status == 3, "completed, and not silent about it"
    assert {one[0] for one in told(done).values()} == {"nfs.changed_while_read"}
    assert {one: before[one] + 1 for one in BOTH} == home.good_backups()


def test_a_wrong_restic_password_fails_that_share_only_and_is_never_shown(home: Home) -> None:
    before = home.good_backups()
    right = home.environment["CANARY_RESTIC"]
    home.environment["CANARY_RESTIC"] = "canary-wrong-password"

    done = home.opsd("run-job", "nfs-backup", "-o", "json")

    home.environment["CANARY_RESTIC"] = right
    found = told(done)
    assert done.status == 1
    assert set(found) == {"share/restic"}
    assert "wrong password" in found["share/restic"][1]
    assert "canary-wrong-password" not in done.out + done.err
    assert home.good_backups() == {**before, "share/rsync": before["share/rsync"] + 1}


def test_a_restic_store_that_vanished_is_an_alarm_and_not_made_anew(home: Home) -> None:
    store(home).rename(home.place / "elsewhere")

    done = home.opsd("run-job", "nfs-backup", "-o", "json")

    made_anew = store(home).exists()
    (home.place / "elsewhere").rename(store(home))
    assert done.status == 1
    assert told(done)["share/restic"][0] == "nfs.store_vanished"
    assert not made_anew


def locked(locks: Path) -> list[Path]:
    """The locks of a restic repository; restic ignores what it did not finish to write."""
    return [path for path in locks.iterdir() if "-tmp-" not in path.name]


def test_the_lock_of_a_killed_run_does_not_stop_the_next_one(home: Home) -> None:
    before = home.good_backups()["share/restic"]
    locks = store(home) / "locks"
    with home.running("run-job", "nfs-backup") as run:
        while not locked(locks):
            assert run.poll() is None, "it ended before restic locked anything"
            time.sleep(0.005)
        run.kill()
        run.wait()
    stale = locked(locks)

    done = home.opsd("run-job", "nfs-backup")

    assert stale, "the kill left no lock"
    assert done.status == 0, done.out
    assert locked(locks) == []
    assert home.good_backups()["share/restic"] == before + 1


def test_flipped_bytes_are_told_stay_known_and_never_count_as_a_backup(home: Home) -> None:
    before = home.good_backups()
    flipped = [damaged_pack(home), damaged_file(home)]
    for path in flipped:
        shares.flip(path)

    verified = home.opsd("backups", "verify", "-o", "json")
    known = home.good_backups()
    listed = home.opsd("backups", "list")

    for path in flipped:
        shares.flip(path)
    assert verified.status == 1
    assert {one["subject"] for one in verified.json["verified"] if not one["ok"]} == BOTH
    assert {one: before[one] - 1 for one in BOTH} == known
    assert "2 backups in disk damaged" in listed.out
    assert home.opsd("backups", "verify").status == 0, "a later proof counts again"


def test_nothing_is_built_on_damaged_data_and_the_page_says_how_to_go_on(home: Home) -> None:
    pack, file = damaged_pack(home), damaged_file(home)
    for path in (pack, file):
        shares.flip(path)
    assert home.opsd("backups", "verify").status == 1

    on_damage = home.opsd("run-job", "nfs-backup", "-o", "json")
    heal(home, pack=pack.name, file=file)
    healed = home.opsd("run-job", "nfs-backup", "-o", "json")

    assert on_damage.status == 1
    assert {check for check, _ in told(on_damage).values()} >= {"backup.corrupted"}
    assert healed.status == 0, healed.out
    assert {one["subject"] for one in healed.json["runs"][0]["artifacts"]} == BOTH
    assert "backup.damaged" in {check for check, _ in told(healed).values()}
    assert home.opsd("status").status == 3, "the damaged ones are still there, and shown"


def heal(home: Home, *, pack: str, file: Path) -> None:
    """What docs/repositories.md says under Damage."""
    environment = {**os.environ, "RESTIC_PASSWORD": home.environment["CANARY_RESTIC"]}
    restic = ["restic", "-r", str(store(home))]
    for repair in (("packs", pack), ("snapshots", "--forget")):
        subprocess.run(
            [*restic, "repair", *repair],
            env=environment,
            cwd=home.place,
            check=True,
            capture_output=True,
        )
    inside = Path(*file.relative_to(home.repository / "rsync/rsync").parts[1:])
    for snapshot in (home.repository / "rsync/rsync").iterdir():
        (snapshot / inside).unlink(missing_ok=True) if snapshot.is_dir() else None


def damaged_pack(home: Home) -> Path:
    """The largest of restic's packs."""
    return max(shares.files_below(store(home) / "data"), key=lambda one: one.stat().st_size)


def damaged_file(home: Home) -> Path:
    """A file in the newest snapshot of rsync, which shares it with the older ones."""
    newest = max(path for path in (home.repository / "rsync/rsync").iterdir() if path.is_dir())
    return newest / "default-photos-pvc-1/deep/file 19.txt"
