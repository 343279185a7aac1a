"""What the regular report says, and that it comes once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from opsd.alerts.marks import Mark
from opsd.alerts.policy import Policy
from opsd.alerts.report import (
    BODY_CHARACTERS,
    FINDINGS_SHOWN,
    MACHINES_SHOWN,
    SUBJECTS_SHOWN,
    Summary,
    compose,
)
from opsd.alerts.reporting import FURTHEST_SLOT, Reports
from opsd.cron import parse
from opsd.incidents import Acknowledgement, Pause
from opsd.model import Artifact, Finding, Message, OpenFinding, Outcome, Run, Severity
from opsd.state.sqlite import SqliteState
from opsd.state.tally import Tally
from opsd.testing import FakeClock, tell_at_once, tell_nobody

BERLIN = ZoneInfo("Europe/Berlin")
SLOT = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)  # a Monday, 8:00 in Berlin
WEEK = timedelta(days=7)
JOB = "postgres-backup"
NIGHTLY = parse("15 2 * * *", timezone=BERLIN, spread_by=JOB)
POLICY = Policy(timezone="Europe/Berlin", report="0 8 * * 1")


def finding(subject: str = "database/main/app", **changes: object) -> Finding:
    values: dict[str, object] = {
        "check": "postgres.dump_failed",
        "subject": subject,
        "severity": Severity.CRITICAL,
        "summary": f"the dump of {subject} failed",
        "remedy": "opsd run-job postgres-backup",
    }
    return Finding(**{**values, **changes})  # type: ignore[arg-type]


def opened(subject: str = "database/main/app", **changes: object) -> OpenFinding:
    return OpenFinding(
        finding=finding(subject, **changes), job=JOB, opened_at=SLOT - timedelta(days=2)
    )


def summary(*findings: OpenFinding, **changes: object) -> Summary:
    values: dict[str, object] = {
        "since": SLOT - WEEK,
        "now": SLOT,
        "tally": Tally(
            outcomes={JOB: {Outcome.COMPLETED: 7}},
            backups=14,
            newest={"database/main/app": SLOT - timedelta(hours=5)},
        ),
        "findings": findings,
        "jobs": {JOB: NIGHTLY},
    }
    return Summary(**{**values, **changes})  # type: ignore[arg-type]


def composed(what: Summary) -> Message:
    return compose(what, slot=SLOT, timezone=BERLIN)


def test_that_all_is_well_is_said_with_what_was_made() -> None:
    message = composed(summary())

    assert message.title == "All is well: 14 backups made and proven this week"
    assert message.severity is Severity.INFO
    assert message.body == (
        "Jobs:\n"
        "postgres-backup: 7 completed, next Tue 24 Nov 02:15\n"
        "\n"
        "Newest backups, the oldest first:\n"
        "5 h: database/main/app"
    )


def test_what_needs_a_person_comes_first_with_its_remedy() -> None:
    message = composed(summary(opened(), opened("share/nfs", severity=Severity.WARNING)))

    assert message.title == "2 things need you; 14 backups made and proven this week"
    assert message.severity is Severity.WARNING
    assert message.body.splitlines()[:5] == [
        "Needs you:",
        "- the dump of database/main/app failed (database/main/app, for 2 d)",
        "  Next: opsd run-job postgres-backup",
        "- the dump of share/nfs failed (share/nfs, for 2 d)",
        "  Next: opsd run-job postgres-backup",
    ]


def test_one_thing_needs_you() -> None:
    assert composed(summary(opened())).title.startswith("1 thing needs you; ")


def test_what_is_only_information_is_told_and_all_is_well() -> None:
    message = composed(summary(opened(severity=Severity.INFO)))

    assert message.title.startswith("All is well")
    assert "For information:\n- the dump of database/main/app failed" in message.body


def state(machine: str, area: str, said: str) -> OpenFinding:
    return opened(
        f"machine/{machine}", check=f"{area}.state", summary=said, severity=Severity.INFO
    )


def test_every_machine_has_a_line_and_is_no_news() -> None:
    message = composed(
        summary(
            state("rpi1", "health", "healthy"),
            state("rpi2", "patches", "up to date"),
            state("rpi1", "patches", "5 updates, 3 for security"),
        )
    )

    assert message.title.startswith("All is well")
    assert "Machines:\nrpi1: 5 updates, 3 for security; healthy\nrpi2: up to date" in message.body
    assert "For information" not in message.body


def test_what_was_said_of_a_machine_before_nobody_could_look_is_not_repeated() -> None:
    message = composed(
        summary(
            state("rpi1", "patches", "up to date"),
            state("rpi1", "health", "healthy"),
            opened("machine/rpi1", check="machine.unreachable"),
            state("rpi2", "patches", "up to date"),
            state("rpi2", "health", "healthy"),
            opened("machine/rpi2/patches", check="patches.unknown"),
        )
    )

    assert "rpi1: cannot be asked\nrpi2: patches not known; healthy" in message.body


@pytest.mark.parametrize("beyond", [0, 1])
def test_the_lines_of_machines_are_bounded(beyond: int) -> None:
    machines = [
        state(f"rpi{n:02}", "patches", "up to date") for n in range(MACHINES_SHOWN + beyond)
    ]

    body = composed(summary(*machines)).body

    assert body.count("up to date") == MACHINES_SHOWN
    assert ("and 1 more, opsd nodes" in body) is bool(beyond)


def test_what_somebody_has_in_hand_is_named_and_does_not_need_you() -> None:
    entry = opened()
    mark = Mark(acknowledged=Acknowledgement(at=SLOT))

    message = composed(summary(entry, marks={(entry.job, *entry.finding.key): mark}))

    assert message.title.startswith("All is well")
    assert "Acknowledged or silenced:\n- the dump of database/main/app failed" in message.body


def test_what_follows_from_something_else_is_not_counted() -> None:
    effect = opened("job/postgres-backup", check="job.not_completed", cause="server/main")

    alone = composed(summary(effect))
    with_cause = composed(summary(opened("server/main"), effect))

    assert alone.title.startswith("1 thing needs you")
    assert with_cause.title.startswith("1 thing needs you")
    assert "job/postgres-backup" not in with_cause.body


def test_a_job_that_was_due_and_did_not_run_is_not_well() -> None:
    message = composed(summary(tally=Tally()))

    assert message.title == "1 thing needs you; nothing completed this week"
    assert "postgres-backup was due and nothing is on record" in message.body


@pytest.mark.parametrize(("day", "is_due"), [("20", True), ("1", False)])
def test_only_a_job_that_was_due_had_to_run(day: str, *, is_due: bool) -> None:
    monthly = parse(f"0 3 {day} * *", timezone=BERLIN, spread_by="x")

    body = composed(summary(jobs={JOB: NIGHTLY, "x": monthly})).body

    assert ("x was due" in body) == is_due
    assert "x: not due, next" in body


def test_a_paused_job_is_named_with_its_reason_and_is_not_missing() -> None:
    pause = Pause(job=JOB, since=SLOT, until=SLOT + timedelta(days=1), reason="new disk")

    message = composed(summary(tally=Tally(), pauses=[pause]))

    assert message.title == "Nothing to report: nothing completed this week"
    assert "postgres-backup: not due, paused until Tue 24 Nov 08:00: new disk" in message.body


def test_runs_that_needed_another_try_are_counted() -> None:
    tally = Tally(outcomes={JOB: {Outcome.COMPLETED: 6, Outcome.TIMED_OUT: 1}}, healed={JOB: 2})

    body = composed(summary(tally=tally)).body

    assert "postgres-backup: 6 completed, 1 timed out, 2 after another try, next" in body


def test_what_came_and_went_is_named_and_what_stayed_is_not() -> None:
    stays, gone = opened(), finding("share/nfs")
    note = finding("note", severity=Severity.INFO)
    found = {(JOB, *one.key): one for one in (stays.finding, gone, note)}

    body = composed(summary(stays, tally=Tally(found=found))).body

    assert body.split("Came and went:\n")[1] == "- the dump of share/nfs failed (share/nfs)"


def test_messages_that_wait_are_counted() -> None:
    assert "2 messages could not be delivered yet" in composed(summary(undelivered=2)).body


@pytest.mark.parametrize(
    ("days", "period"),
    [(1, "since yesterday"), (7, "this week"), (30, "this month"), (3, "in 3 d")],
)
def test_the_time_that_a_report_covers_is_said_in_words(days: int, period: str) -> None:
    message = composed(summary(since=SLOT - timedelta(days=days)))

    assert message.title.endswith(f"proven {period}")


@pytest.mark.parametrize("beyond", [0, 1])
def test_lists_are_bounded_and_the_rest_is_counted(beyond: int) -> None:
    findings = [opened(f"database/main/db{n:02}") for n in range(FINDINGS_SHOWN + beyond)]
    newest = {f"share/{n:02}": SLOT - timedelta(hours=n) for n in range(SUBJECTS_SHOWN + beyond)}

    body = composed(summary(*findings, tally=Tally(newest=newest))).body

    assert ("and 1 more, opsd findings" in body) == bool(beyond)
    assert ("and 1 more, all newer" in body) == bool(beyond)
    assert ("share/00" in body) == (not beyond)  # the newest is the one left out


def test_the_longest_report_still_fits_a_phone() -> None:
    findings = [opened(f"{n}" * 500, remedy="r" * 500) for n in range(40)]
    notes = [
        replace(one, finding=replace(one.finding, severity=Severity.INFO)) for one in findings
    ]

    message = composed(summary(*findings, *notes))

    assert len(message.body) <= BODY_CHARACTERS
    assert message.body.endswith("\n… opsd status")
    assert len(message.title) <= 200


def test_hostile_names_stay_harmless() -> None:
    message = composed(summary(opened("share/a\x1b[31m\n\u202e\udcff")))

    assert not {"\x1b", "\u202e", "\udcff"} & set(message.title + message.body)


class Week:
    """A state on disk and what is reported of it, hour by hour."""

    def __init__(self, path: Path, policy: Policy = POLICY) -> None:
        self.clock = FakeClock(SLOT - timedelta(days=3))
        self.path = path
        self.policy = policy
        self.open()

    def open(self) -> None:
        self.state = SqliteState(self.path, clock=self.clock)
        self.reports = Reports(self.state, policy=self.policy, jobs={JOB: NIGHTLY})

    def look(self, at: datetime) -> bool:
        self.clock.wall = at
        return self.reports.send_if_due(at)

    def titles(self) -> list[str]:
        return [entry.message.title for entry in self.state.undelivered()]


@pytest.fixture
def week(tmp_path: Path) -> Iterator[Week]:
    one = Week(tmp_path / "state.db")
    yield one
    one.state.close()


def test_the_first_start_reports_nothing(week: Week) -> None:
    assert not week.look(SLOT - timedelta(days=3))

    assert week.titles() == []


def test_a_report_comes_at_its_time_and_once(week: Week) -> None:
    week.look(SLOT - timedelta(days=3))

    looks = [week.look(SLOT + timedelta(seconds=seconds)) for seconds in (-1, 0, 10, 86400)]

    assert looks == [False, True, False, False]
    assert len(week.titles()) == 1


def test_a_restart_sends_no_second_report(week: Week) -> None:
    week.look(SLOT - timedelta(days=3))
    week.look(SLOT)
    week.state.close()
    week.open()

    assert not week.look(SLOT + timedelta(minutes=1))
    assert len(week.titles()) == 1


def test_two_that_look_at_once_send_one_report(week: Week) -> None:
    week.look(SLOT - timedelta(days=3))
    other = Reports(week.state, policy=POLICY, jobs={})

    week.look(SLOT)
    other.send_if_due(SLOT)

    assert len(week.titles()) == 1


def test_one_report_follows_three_weeks_of_standstill(week: Week) -> None:
    week.look(SLOT - timedelta(days=3))

    week.look(SLOT + 3 * WEEK + timedelta(hours=5))

    assert len(week.titles()) == 1
    assert week.titles()[0].endswith("this week")


def test_a_clock_that_stood_in_the_future_ends_no_reports(week: Week) -> None:
    week.look(SLOT - timedelta(days=3))
    week.look(SLOT + 60 * WEEK)
    week.look(SLOT - timedelta(days=2))

    assert week.look(SLOT)
    assert week.look(SLOT + WEEK)


def test_a_clock_that_went_back_a_little_repeats_no_report(week: Week) -> None:
    week.look(SLOT - timedelta(days=3))
    week.look(SLOT)

    looks = [week.look(SLOT - FURTHEST_SLOT), week.look(SLOT), week.look(SLOT + WEEK)]

    assert looks == [False, False, True]


def test_without_a_schedule_there_is_no_report(tmp_path: Path) -> None:
    never = Week(tmp_path / "state.db", policy=replace(POLICY, report=""))

    looks = [never.look(SLOT + timedelta(days=day)) for day in range(15)]

    assert not any(looks)
    assert never.state.alerts().report_slot is None
    never.state.close()


def test_a_report_is_made_of_what_is_on_record(week: Week) -> None:
    week.look(SLOT - timedelta(days=3))
    artifact = Artifact(
        kind="pg_dump",
        subject="database/main/app",
        repository="usb",
        key="database/main/app/1.json",
        size_bytes=1,
        sha256="00",
        level="parsed",
    )
    run = Run(
        job=JOB,
        run_id="a1",
        slot=SLOT - timedelta(hours=5),
        started_at=SLOT - timedelta(hours=5),
        duration=timedelta(minutes=3),
        outcome=Outcome.COMPLETED,
        artifacts=(artifact,),
    )
    failed = replace(
        run, run_id="b1", job="nfs-backup", outcome=Outcome.FAILED, artifacts=(), error="no share"
    )
    week.state.record(run, tell=tell_nobody)
    week.state.record(failed, tell=tell_nobody)

    week.look(SLOT)

    [entry] = week.state.undelivered()
    assert entry.message.title == "1 thing needs you; 1 backup made and proven this week"
    assert "nfs-backup: 1 failed" in entry.message.body
    assert "5 h: database/main/app" in entry.message.body


def test_the_report_leaves_what_people_were_told_as_it_was(week: Week) -> None:
    week.state.observe("opsd", findings=[finding()], seen=[], tell=tell_at_once)
    before = week.state.alerts()

    week.look(SLOT - timedelta(days=3))
    week.look(SLOT)

    assert replace(week.state.alerts(), report_slot=None) == before
