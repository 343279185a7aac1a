from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from jobs import nfs_backup
from jobs.nfs_backup import Settings, ShareTable
from opsd.backup.catalog import read_catalog
from opsd.backup.directory import DirectoryRepository
from opsd.model import Finding, Outcome, Run, Severity
from opsd.runner import execute
from opsd.testing import MemoryRepository, context
from tests.rig import shares
from tests.rig.shares import CLOCK, PASSWORD, PASSWORD_REFERENCE, SLOT


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD_REFERENCE.removeprefix("env:"), PASSWORD)


def table(path: Path, **settings: Any) -> dict[str, Any]:
    defaults = {
        "name": "nfs",
        "path": str(path),
        "mounted": False,
        "repository": "disk",
        "engine": "rsync",
    }
    return defaults | settings


def run_job(
    place: Path, *tables: dict[str, Any], day: int = 0, dry_run: bool = False, **options: Any
) -> Run:
    (place / "repository").mkdir(exist_ok=True)
    (place / "scratch").mkdir(exist_ok=True)
    ctx = context(
        scratch=place / "scratch",
        repositories=(DirectoryRepository("disk", place / "repository"),),
        clock=CLOCK,
        job="nfs-backup",
        run_id=f"{day + 100:012x}",
        slot=SLOT + timedelta(days=day),
        dry_run=dry_run,
        **options,
    )
    return execute(nfs_backup.JOB, Settings.model_validate({"shares": tables}), ctx)


def published(place: Path) -> list[str]:
    catalog = read_catalog(DirectoryRepository("disk", place / "repository"))
    return [one.manifest.subject for one in catalog.backups]


def checks(run: Run) -> list[str]:
    return [one.check for one in run.findings]


def only(run: Run) -> Finding:
    assert len(run.findings) == 1, run.findings
    return run.findings[0]


@pytest.mark.real
@pytest.mark.usefixtures("restic", "rsync")
@pytest.mark.parametrize("engine", ["restic", "rsync"])
def test_a_share_is_backed_up_proven_and_told(tmp_path: Path, engine: str) -> None:
    shares.build_share(tmp_path / "share")
    shares.make_sqlite(tmp_path / "share/app/state.db").close()
    shares.make_pgdata(tmp_path / "share/db")
    one = table(tmp_path / "share", engine=engine, password=PASSWORD_REFERENCE)

    run = run_job(tmp_path, one)

    assert (run.outcome, run.error) == (Outcome.COMPLETED, "")
    (artifact,) = run.artifacts
    assert (artifact.kind, artifact.subject, artifact.level) == (engine, "share/nfs", "read_back")
    assert (artifact.facts["sqlite"], artifact.facts["pgdata"]) == (1, 1)
    assert run.seen == ("share/nfs",)
    assert published(tmp_path) == ["share/nfs"]
    finding = only(run)
    assert (finding.check, finding.severity) == ("nfs.pgdata_excluded", Severity.INFO)


@pytest.mark.real
@pytest.mark.usefixtures("rsync")
def test_a_slot_has_one_result_however_often_it_runs(tmp_path: Path) -> None:
    shares.build_share(tmp_path / "share")
    run_job(tmp_path, table(tmp_path / "share"))

    again = run_job(tmp_path, table(tmp_path / "share"))

    assert (again.outcome, again.artifacts, again.seen) == (
        Outcome.COMPLETED,
        (),
        ("share/nfs",),
    )
    assert published(tmp_path) == ["share/nfs"]


@pytest.mark.real
@pytest.mark.usefixtures("rsync")
def test_one_share_that_fails_stops_none_of_the_others(tmp_path: Path) -> None:
    shares.build_share(tmp_path / "share")
    (tmp_path / "empty").mkdir()

    run = run_job(
        tmp_path, table(tmp_path / "empty", name="bad"), table(tmp_path / "share", name="good")
    )

    assert run.outcome is Outcome.FAILED
    assert run.error == "1 of 2 failed: share/bad"
    assert run.seen == ("share/good",)
    assert not run.may_pass
    assert (only(run).check, only(run).subject) == ("nfs.empty", "share/bad")
    assert published(tmp_path) == ["share/good"]


@pytest.mark.real
@pytest.mark.usefixtures("rsync")
def test_a_dry_run_writes_nothing_and_says_what_would_go(tmp_path: Path) -> None:
    shares.build_share(tmp_path / "share")
    run_job(tmp_path, table(tmp_path / "share"))
    before = shares.tree(tmp_path / "repository")

    run = run_job(tmp_path, table(tmp_path / "share"), day=1, dry_run=True)

    assert shares.tree(tmp_path / "repository") == before
    assert checks(run) == ["dry_run.share", "dry_run.keep"]
    assert run.artifacts == ()


@pytest.mark.real
@pytest.mark.usefixtures("restic", "rsync")
@pytest.mark.parametrize("engine", ["restic", "rsync"])
def test_what_no_rule_keeps_goes_with_its_snapshot(tmp_path: Path, engine: str) -> None:
    shares.build_share(tmp_path / "share")
    keep = {"last": 1, "daily": 0, "weekly": 0, "monthly": 0, "minimum": 1}
    one = table(tmp_path / "share", engine=engine, password=PASSWORD_REFERENCE, keep=keep)

    runs = [run_job(tmp_path, one, day=day) for day in range(-3, 0)]

    assert [run.outcome for run in runs] == [Outcome.COMPLETED] * 3
    catalog = read_catalog(DirectoryRepository("disk", tmp_path / "repository"))
    (left,) = (one.manifest for one in catalog.backups)
    assert left.slot == SLOT - timedelta(days=1)
    rig = shares.in_directory(engine, tmp_path / "share", tmp_path)  # type: ignore[arg-type]
    assert rig.snapshots() == (str(left.source["snapshot"]),)


@pytest.mark.real
@pytest.mark.usefixtures("rsync")
@pytest.mark.parametrize(("left", "refused"), [(10, False), (9, True)])
def test_a_share_that_shrank_is_refused_below_the_threshold(
    tmp_path: Path, *, left: int, refused: bool
) -> None:
    share = tmp_path / "share"
    share.mkdir()
    for number in range(20):
        (share / f"file-{number}").write_text("x")
    run_job(tmp_path, table(share))
    for number in range(left, 20):
        (share / f"file-{number}").unlink()

    run = run_job(tmp_path, table(share), day=1)

    assert (checks(run) == ["nfs.shrunk"]) is refused
    assert len(published(tmp_path)) == (1 if refused else 2)


@pytest.mark.real
@pytest.mark.usefixtures("rsync")
def test_the_named_override_lets_a_shrunken_share_through(tmp_path: Path) -> None:
    share = tmp_path / "share"
    shares.build_share(share / "a")
    (share / "b").write_text("b")
    run_job(tmp_path, table(share))
    subprocess.run(["rm", "-r", share / "a"], check=True)
    refused = run_job(tmp_path, table(share), day=1)

    allowed = run_job(tmp_path, table(share, shrink_percent=0), day=1)

    assert "shrink_percent = 0" in only(refused).remedy
    assert allowed.outcome is Outcome.COMPLETED


@pytest.mark.parametrize(("files", "refused"), [(2, True), (3, False)])
def test_fewer_files_than_expected_are_no_backup(
    tmp_path: Path, *, files: int, refused: bool
) -> None:
    share = tmp_path / "share"
    share.mkdir()
    for number in range(files):
        (share / str(number)).touch()

    run = run_job(tmp_path, table(share, min_files=3), dry_run=True)

    assert ("nfs.empty" in checks(run)) is refused


def test_a_share_that_is_no_mount_point_is_refused(tmp_path: Path) -> None:
    shares.build_share(tmp_path / "share")

    run = run_job(tmp_path, table(tmp_path / "share", mounted=True))

    assert only(run).check == "nfs.not_mounted"
    assert published(tmp_path) == []


def test_a_share_without_its_sentinel_is_refused(tmp_path: Path) -> None:
    shares.build_share(tmp_path / "share")

    run = run_job(tmp_path, table(tmp_path / "share", sentinel=".this-is-it"))

    assert only(run).check == "nfs.sentinel_missing"
    (tmp_path / "share/.this-is-it").touch()
    there = run_job(tmp_path, table(tmp_path / "share", sentinel=".this-is-it"), dry_run=True)
    assert checks(there) == ["dry_run.share"]


def test_a_share_that_is_all_pgdata_is_refused(tmp_path: Path) -> None:
    shares.make_pgdata(tmp_path / "share")

    run = run_job(tmp_path, table(tmp_path / "share"))

    assert only(run).check == "nfs.pgdata"


def test_rsync_into_a_repository_that_is_no_directory_is_a_clear_failure(tmp_path: Path) -> None:
    shares.build_share(tmp_path / "share")
    ctx = context(
        scratch=tmp_path, repositories=(MemoryRepository("disk"),), clock=CLOCK, slot=SLOT
    )

    settings = Settings.model_validate({"shares": [table(tmp_path / "share")]})
    run = execute(nfs_backup.JOB, settings, ctx)

    assert run.outcome is Outcome.FAILED
    assert "choose a directory repository" in str(only(run).facts["error"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"engine": "restic"},
        {"path": "relative"},
        {"path": "/"},
        {"exclude": ["!no"]},
        {"exclude": ["- no"]},
        {"exclude": ["/"]},
        {"exclude": ["two\nlines"]},
        {"destination": "rest:https://me:word@host/"},
        {"shrink_percent": 101},
        {"verify_within": "never"},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    ShareTable.model_validate(table(Path("/srv/nfs")))

    with pytest.raises(ValidationError):
        ShareTable.model_validate(table(Path("/srv/nfs")) | wrong)


def test_the_job_is_cheap_to_import() -> None:
    code = "import sys, jobs.nfs_backup; print([m for m in ('boto3', 'psycopg', 'apprise', "
    code += "'kubernetes', 'paramiko') if m in sys.modules])"

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )

    assert done.stdout.strip() == "[]"
