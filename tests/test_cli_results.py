"""What a person reads after a run: what is safe, what is not, what to do."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest

from opsd.cli.render import Screen, Tone
from opsd.cli.results import run_json, show_runs, verdict
from opsd.model import Artifact, Finding, Outcome, Run, Severity

SLOT = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


def artifact(subject: str, *, repository: str = "usb", level: str = "read_back") -> Artifact:
    return Artifact(
        kind="pg_dump",
        subject=subject,
        repository=repository,
        key=f"{subject}/20261122T030000Z.json",
        size_bytes=1 << 20,
        sha256="00",
        level=level,
        facts={"tables": 1, "rows": 1200, "encrypted": True},
    )


def finding(subject: str, severity: Severity) -> Finding:
    return Finding(
        check="postgres.dump_failed",
        subject=subject,
        severity=severity,
        summary="it is odd",
        remedy="mend it",
    )


def run(
    *artifacts: Artifact,
    findings: tuple[Finding, ...] = (),
    outcome: Outcome = Outcome.COMPLETED,
    error: str = "",
) -> Run:
    return Run(
        job="postgres-backup",
        run_id="0123456789ab",
        slot=SLOT,
        started_at=SLOT,
        duration=timedelta(seconds=1.5),
        outcome=outcome,
        findings=findings,
        artifacts=artifacts,
        error=error,
    )


def shown(*runs: Run, dry_run: bool = False) -> str:
    stream = io.StringIO()
    show_runs(Screen(stream), runs, dry_run=dry_run)
    return stream.getvalue()


def test_the_verdict_counts_what_is_safe_and_where() -> None:
    done = run(
        artifact("database/main/a"),
        artifact("database/main/b"),
        artifact("globals/main"),
        artifact("share/nfs"),
    )

    text, tone = verdict([done], dry_run=False)

    assert text == (
        "2 databases, the roles of 1 server and 1 share are safe: 4.0 MiB in usb, "
        "every byte was read back and matches."
    )
    assert tone is Tone.GOOD


def test_one_share_is_safe() -> None:
    assert verdict([run(artifact("share/nfs"))], dry_run=False)[0].startswith("1 share is safe:")


def test_what_was_not_read_back_is_not_called_proven() -> None:
    text, _ = verdict([run(artifact("share/nfs", level="none"))], dry_run=False)

    assert "NOT proven" in text
    assert "read back" not in text


def test_copies_in_two_repositories_are_one_backup() -> None:
    done = run(artifact("share/nfs"), artifact("share/nfs", repository="offsite", level="parsed"))

    text = shown(done)

    [row] = [line for line in text.splitlines() if line.startswith("✓")]
    assert "usb, offsite" in row
    assert "read back" in row  # the lower of the two levels
    assert "1 share is safe: 2.0 MiB in offsite and usb" in text


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT, Outcome.INTERRUPTED])
def test_a_run_that_did_not_complete_is_never_green(outcome: Outcome) -> None:
    done = run(artifact("database/main/a"), outcome=outcome, error="1 of 2 failed")

    text, tone = verdict([done], dry_run=False)

    assert tone is Tone.BAD
    assert text.startswith("postgres-backup did not complete. 1 database is safe")
    assert text.endswith("opsd run-job postgres-backup")


def test_a_skipped_run_points_to_the_run_that_is_under_way() -> None:
    skipped = run(outcome=Outcome.SKIPPED, error="already running: run 0123, process 42")

    text = shown(skipped)

    assert "✗ postgres-backup skipped: already running: run 0123, process 42" in text
    assert text.endswith("postgres-backup did not start: another run is under way.\n")


def test_a_failure_without_any_backup_says_that_older_ones_are_untouched() -> None:
    text, _ = verdict([run(outcome=Outcome.FAILED, error="no server")], dry_run=False)

    assert "Older backups are untouched." in text


def test_a_failed_subject_stands_in_the_table_and_below_it_with_its_remedy() -> None:
    done = run(
        artifact("database/main/a"),
        findings=(finding("database/main/b", Severity.CRITICAL),),
        outcome=Outcome.FAILED,
        error="1 of 2 failed",
    )

    lines = shown(done).splitlines()

    assert [line.split()[:2] for line in lines if line[:1] in "✓✗"][:2] == [
        ["✓", "database/main/a"],
        ["✗", "database/main/b"],
    ]
    assert "✗ database/main/b: it is odd" in lines
    assert "  > mend it" in lines
    assert "✗ postgres-backup failed: 1 of 2 failed" in lines


@pytest.mark.parametrize(
    ("severity", "tone"),
    [(Severity.INFO, Tone.GOOD), (Severity.WARNING, Tone.WARNING)],
)
def test_only_what_needs_a_person_takes_the_green_away(severity: Severity, tone: Tone) -> None:
    done = run(artifact("share/nfs"), findings=(finding("share/nfs", severity),))

    assert verdict([done], dry_run=False)[1] is tone


def test_a_dry_run_is_shown_as_a_plan_and_says_that_nothing_happened() -> None:
    planned = (
        Finding(
            check="dry_run.remove",
            subject="repository/usb/database/main/a/20261122T030000Z.json",
            severity=Severity.INFO,
            summary="would remove: older than all that is kept",
        ),
        Finding(
            check="dry_run.dump",
            subject="database/main/a",
            severity=Severity.INFO,
            summary="would be dumped to usb",
        ),
    )

    lines = shown(run(findings=planned), dry_run=True).splitlines()

    assert lines[1].split() == ["dump", "database/main/a", "dumped", "to", "usb"]
    assert lines[2].split()[:4] == ["remove", "database/main/a", "20261122T030000Z", "usb"]
    assert lines[2].endswith("older than all that is kept")
    assert lines[-1] == "Dry run: nothing was written, nothing was removed."


def test_the_json_of_a_run_has_the_keys_of_the_contract() -> None:
    told = run_json(run(artifact("share/nfs"), findings=(finding("share/nfs", Severity.INFO),)))

    assert {
        "job", "run_id", "outcome", "started_at", "duration_s", "findings", "artifacts", "error"
    } <= set(told)  # fmt: skip
    assert told["duration_s"] == 1.5
    assert told["artifacts"][0]["size_bytes"] == 1 << 20
    assert told["findings"][0]["severity"] == "info"


def test_a_member_of_an_etcd_that_is_ill_is_no_backup_that_failed() -> None:
    ill = finding("etcd/main/rpi1", Severity.CRITICAL)

    beside = shown(run(artifact("etcd/main"), findings=(ill,)))

    assert "failed" not in beside
    assert "1 control plane is safe" in beside
    assert "failed" in shown(run(findings=(finding("etcd/main", Severity.CRITICAL),)))
