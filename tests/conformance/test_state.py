"""What every store of the state must do. A second store joins by its factory."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsd.errors import LeaseHeld, SlotAnswered
from opsd.incidents import AlertState
from opsd.model import (
    VOID,
    Artifact,
    Change,
    Finding,
    Message,
    OpenFinding,
    Outcome,
    Run,
    Severity,
)
from opsd.state import FURTHEST_RECORD, State
from opsd.state.tables import RUNS_KEPT
from opsd.testing import FakeClock, tell_at_once, tell_nobody
from opsd.triage import RETRY_TAKES

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
JOB = "postgres-backup"
Opener = Callable[[], State]


def finding(subject: str = "database/main/app", **changes: object) -> Finding:
    values: dict[str, object] = {
        "check": "postgres.dump_failed",
        "subject": subject,
        "severity": Severity.CRITICAL,
        "summary": "the dump failed",
        "remedy": "opsd run-job postgres-backup",
        "facts": {"exit_status": 1, "host": "db", "ratio": 0.5, "partial": False, "size": None},
    }
    return Finding(**{**values, **changes})  # type: ignore[arg-type]


def run(run_id: str, *, minute: int = 0, **changes: object) -> Run:
    values: dict[str, object] = {
        "job": JOB,
        "run_id": run_id,
        "slot": NOON + timedelta(minutes=minute),
        "started_at": NOON + timedelta(minutes=minute),
        "duration": timedelta(seconds=2.5),
        "outcome": Outcome.COMPLETED,
        "attempt": 1,
    }
    return Run(**{**values, **changes})  # type: ignore[arg-type]


def test_a_run_comes_back_as_it_was_recorded(open_state: Opener) -> None:
    artifact = Artifact(
        kind="pg_dump",
        subject="database/main/app",
        repository="local",
        key="database/main/app/20261122T120000Z.json",
        size_bytes=12,
        sha256="00",
        level="read_back",
        facts={"tables": 3},
    )
    recorded = run(
        "a1",
        outcome=Outcome.FAILED,
        findings=(finding(),),
        artifacts=(artifact,),
        seen=("database/main/app",),
        unseen=("database/main/old",),
        error="PartialFailure: 1 of 2",
    )

    open_state().record(recorded, tell=tell_nobody)

    assert open_state().runs() == (recorded,)


def test_recording_a_run_twice_changes_nothing(state: State) -> None:
    first = state.record(run("a1", findings=(finding(),)), tell=tell_at_once)
    second = state.record(run("a1", findings=()), tell=tell_at_once)

    assert [one.change for one in first] == [Change.OPENED]
    assert second == ()
    assert len(state.undelivered()) == 1
    assert len(state.open_findings()) == 1


def test_a_run_that_was_begun_is_unfinished_until_it_is_recorded(state: State) -> None:
    state.begin(job=JOB, run_id="a1", slot=NOON, at=NOON)

    before = (
        state.unfinished_runs(JOB),
        state.running(),
        state.runs(),
        state.last_slot(JOB, at=NOON + timedelta(hours=1)),
    )
    state.record(run("a1"), tell=tell_nobody)
    after = state.unfinished_runs(JOB), state.running()

    (lost,), running, recorded, last_slot = before
    assert (lost.run_id, lost.slot, lost.outcome) == ("a1", NOON, Outcome.INTERRUPTED)
    assert running == ((JOB, "a1", NOON),)
    assert recorded == ()
    assert last_slot is None
    assert after == ((), ())
    assert state.last_slot(JOB, at=NOON + timedelta(hours=1)) == NOON


def test_unfinished_runs_of_other_jobs_are_not_ours(state: State) -> None:
    state.begin(job="nfs-backup", run_id="a1", slot=NOON, at=NOON)

    assert state.unfinished_runs(JOB) == ()


def test_dead_runs_are_those_that_did_not_complete(state: State) -> None:
    state.record(run("good"), tell=tell_nobody)
    state.record(run("bad", outcome=Outcome.FAILED), tell=tell_nobody)
    state.record(run("late", outcome=Outcome.TIMED_OUT), tell=tell_nobody)
    state.begin(job=JOB, run_id="alive", slot=NOON, at=NOON)

    assert state.dead_runs(JOB) == {"bad", "late"}
    assert state.dead_runs("nfs-backup") == frozenset()


def test_the_last_slot_never_goes_back(state: State) -> None:
    state.record(run("a2", minute=2), tell=tell_nobody)
    state.record(run("a1", minute=1, outcome=Outcome.MISSED), tell=tell_nobody)

    assert state.last_slot(JOB, at=NOON + timedelta(hours=1)) == NOON + timedelta(minutes=2)


def test_a_run_that_somebody_asked_for_is_no_slot(state: State) -> None:
    state.record(run("a1", attempt=0), tell=tell_nobody)

    assert state.last_slot(JOB, at=NOON + timedelta(hours=1)) is None


def test_a_slot_is_on_record_from_its_time_on(state: State) -> None:
    state.record(run("a1", minute=30, started_at=NOON), tell=tell_nobody)

    assert state.last_slot(JOB, at=NOON + timedelta(minutes=29)) is None
    assert state.last_slot(JOB, at=NOON + timedelta(minutes=30)) == NOON + timedelta(minutes=30)


@pytest.mark.parametrize(
    ("late", "counts"),
    [(FURTHEST_RECORD, True), (FURTHEST_RECORD + timedelta(seconds=1), False)],
)
def test_what_a_clock_recorded_that_was_far_ahead_answers_no_slot(
    late: timedelta, state: State, *, counts: bool
) -> None:
    wrong = run("a1", outcome=Outcome.MISSED, started_at=NOON + late)
    state.record(run("a2", minute=300, started_at=NOON + late), tell=tell_nobody)
    state.record(wrong, tell=tell_nobody)

    is_known = state.last_slot(JOB, at=NOON) == NOON
    closed = state.close_slot(run("a3", outcome=Outcome.SKIPPED), tell=tell_nobody)

    assert is_known is counts
    assert closed is not counts


def test_slots_far_in_the_future_are_voided_for_good_and_nearer_ones_are_kept(
    state: State,
) -> None:
    far = FURTHEST_RECORD + timedelta(seconds=1)
    near = run("a1", slot=NOON + FURTHEST_RECORD)
    ahead = run("a2", slot=NOON + far, outcome=Outcome.MISSED, started_at=NOON + far)
    state.record(near, tell=tell_nobody)
    state.record(ahead, tell=tell_nobody)

    voided = [state.void_future(at=NOON), state.void_future(at=NOON)]

    assert voided == [1, 0]
    assert state.last_slot(JOB, at=NOON + timedelta(days=1)) == near.slot
    assert {run.run_id: run.attempt for run in state.runs()} == {"a1": 1, "a2": VOID}
    assert state.close_slot(replace(ahead, run_id="a3"), tell=tell_nobody) is True
    assert len(state.runs(job=JOB)) == 3


def test_what_completed_under_a_wrong_clock_is_not_run_again(state: State) -> None:
    state.record(run("a1", started_at=NOON + timedelta(days=400)), tell=tell_nobody)

    assert state.last_slot(JOB, at=NOON) == NOON
    assert not state.close_slot(run("a3", outcome=Outcome.SKIPPED), tell=tell_nobody)


@pytest.mark.parametrize(
    ("earlier", "is_open"),
    [
        ((), True),
        ((run("a1", outcome=Outcome.FAILED, retry_at=NOON),), True),
        ((run("a1", outcome=Outcome.COMPLETED, attempt=0),), True),
        ((run("a1", job="nfs-backup"),), True),
        ((run("a1", minute=1),), True),
        ((run("a1"),), False),
        ((run("a1", outcome=Outcome.MISSED),), False),
        (
            (
                run("a1", outcome=Outcome.FAILED, retry_at=NOON),
                run("a2", outcome=Outcome.FAILED, attempt=2),
            ),
            False,
        ),
    ],
)
def test_a_slot_is_answered_until_its_last_try_and_not_again(
    earlier: tuple[Run, ...], state: State, *, is_open: bool
) -> None:
    for one in earlier:
        state.record(one, tell=tell_nobody)

    if is_open:
        state.begin(job=JOB, run_id="b1", slot=NOON, at=NOON, attempt=1)
    else:
        with pytest.raises(SlotAnswered):
            state.begin(job=JOB, run_id="b1", slot=NOON, at=NOON, attempt=1)
    closed = state.close_slot(run("c1", outcome=Outcome.MISSED), tell=tell_nobody)

    assert closed is False
    assert len(state.slot_runs(JOB, NOON)) == sum(
        (one.job, one.slot) == (JOB, NOON) for one in earlier
    )
    assert [one[1] for one in state.running()] == (["b1"] if is_open else [])


def test_of_many_who_close_a_slot_one_does(open_state: Opener) -> None:
    states = [open_state() for _ in range(4)]

    def close(number: int) -> bool:
        return states[number].close_slot(
            run(f"a{number}", outcome=Outcome.MISSED, error="opsd was not running"),
            tell=tell_at_once,
        )

    with ThreadPoolExecutor(4) as pool:
        closed = list(pool.map(close, range(4)))

    assert sorted(closed) == [False, False, False, True]
    assert len(states[0].slot_runs(JOB, NOON)) == 1
    assert len(states[0].undelivered()) == 1


def test_the_runs_of_a_slot_come_back_oldest_first_with_their_tries(state: State) -> None:
    first = run("a1", outcome=Outcome.FAILED, retry_at=NOON + timedelta(minutes=1))
    second = run("a2", attempt=2)
    for one in (run("a0", minute=-1), first, second):
        state.record(one, tell=tell_nobody)

    assert state.slot_runs(JOB, NOON) == (first, second)


def test_what_a_run_found_that_is_tried_again_waits_for_that_try(state: State) -> None:
    retried = run(
        "a1",
        outcome=Outcome.FAILED,
        findings=(finding(),),
        duration=timedelta(0),
        retry_at=NOON + timedelta(minutes=5),
    )
    state.record(retried, tell=tell_nobody)
    waiting = {entry.finding.steady_for for entry in state.open_findings()}
    state.record(
        run("a2", outcome=Outcome.FAILED, findings=(finding(),), attempt=2), tell=tell_nobody
    )
    last = {entry.finding.steady_for for entry in state.open_findings()}

    assert waiting == {timedelta(minutes=5) + RETRY_TAKES}
    assert last == {timedelta(0)}


def test_runs_come_newest_first_by_job_and_bounded(state: State) -> None:
    for number in range(3):
        state.record(run(f"a{number}", minute=number), tell=tell_nobody)
    state.record(run("b0", job="nfs-backup"), tell=tell_nobody)

    assert [one.run_id for one in state.runs()] == ["b0", "a2", "a1", "a0"]
    assert [one.run_id for one in state.runs(job=JOB, limit=2)] == ["a2", "a1"]


def test_findings_open_worsen_and_resolve_across_runs(state: State, clock: FakeClock) -> None:
    warning = finding(severity=Severity.WARNING)
    opened = state.record(run("a1", findings=(warning,)), tell=tell_nobody)
    clock.advance(timedelta(hours=1))
    worsened = state.record(run("a2", findings=(finding(),)), tell=tell_nobody)
    still_open = state.open_findings(job=JOB)
    resolved = state.record(run("a3"), tell=tell_nobody)

    assert [one.change for one in (*opened, *worsened, *resolved)] == [
        Change.OPENED,
        Change.WORSENED,
        Change.RESOLVED,
    ]
    assert [(one.finding.severity, one.opened_at) for one in still_open] == [
        (Severity.CRITICAL, NOON)
    ]
    assert resolved[0].opened_at == NOON
    assert state.open_findings() == ()


def test_a_finding_that_stays_open_shows_its_newest_evidence(state: State) -> None:
    state.record(run("a1", findings=(finding(facts={"exit_status": 1}),)), tell=tell_nobody)
    state.record(run("a2", findings=(finding(facts={"exit_status": 2}),)), tell=tell_nobody)

    (entry,) = state.open_findings()

    assert entry.finding.facts == {"exit_status": 2}
    assert entry.opened_at == NOON


def test_open_findings_come_worst_first_then_oldest(state: State, clock: FakeClock) -> None:
    light = replace(finding("database/main/b"), severity=Severity.WARNING)
    first = finding("database/main/c")
    state.record(run("a1", findings=(light, first)), tell=tell_nobody)
    clock.advance(timedelta(hours=1))
    state.record(run("a2", findings=(light, first, finding("database/main/a"))), tell=tell_nobody)

    subjects = [entry.finding.subject for entry in state.open_findings()]

    assert subjects == ["database/main/c", "database/main/a", "database/main/b"]


def test_a_message_waits_until_it_is_delivered(open_state: Opener) -> None:
    state = open_state()
    state.record(run("a1", findings=(finding(),)), tell=tell_at_once)

    (entry,) = open_state().due_messages(NOON)
    state.mark_delivered(entry.id, at=NOON)

    assert "the dump failed" in entry.message.title
    assert entry.attempts == 0
    assert state.undelivered() == ()
    assert open_state().due_messages(NOON + timedelta(days=1)) == ()


def test_a_failed_delivery_is_due_again_at_its_time_and_not_before(state: State) -> None:
    state.record(run("a1", findings=(finding(),)), tell=tell_at_once)
    (entry,) = state.undelivered()
    again = NOON + timedelta(seconds=5)

    state.mark_failed(entry.id, error="phone: refused", next_try_at=again)

    assert state.due_messages(again - timedelta(microseconds=1)) == ()
    (due,) = state.due_messages(again)
    assert (due.attempts, due.last_error) == (1, "phone: refused")


def test_a_delivered_message_does_not_come_back(state: State) -> None:
    state.record(run("a1", findings=(finding(),)), tell=tell_at_once)
    (entry,) = state.undelivered()
    state.mark_delivered(entry.id, at=NOON)

    state.mark_failed(entry.id, error="late news", next_try_at=NOON)

    assert state.undelivered() == ()


def test_it_is_remembered_which_targets_took_a_message(state: State) -> None:
    state.record(run("a1", findings=(finding(),)), tell=tell_at_once)
    (entry,) = state.undelivered()

    for target in ("phone", "chat", "phone"):
        state.mark_accepted(entry.id, target=target)

    assert [one.accepted_by for one in state.undelivered()] == [{"phone", "chat"}]


def test_a_message_with_a_known_key_is_stored_once(state: State) -> None:
    def same(
        alerts: AlertState, _open: Sequence[OpenFinding], _at: datetime
    ) -> tuple[AlertState, Sequence[Message]]:
        return alerts, (Message(key="same", severity=Severity.WARNING, title="t", body="b"),)

    state.record(run("a1"), tell=same)
    state.record(run("a2"), tell=same)

    assert [entry.message.key for entry in state.undelivered()] == ["same"]


def test_a_policy_that_fails_leaves_nothing_of_the_run(state: State) -> None:
    def broken(
        _alerts: AlertState, _open: Sequence[OpenFinding], _at: datetime
    ) -> tuple[AlertState, Sequence[Message]]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        state.record(run("a1", findings=(finding(),)), tell=broken)

    assert state.runs() == ()
    assert state.open_findings() == ()
    assert state.last_slot(JOB, at=NOON + timedelta(hours=1)) is None


def test_names_that_are_not_utf8_are_kept_escaped_and_stay_the_same_finding(state: State) -> None:
    hostile = finding("share/\udcff\n\x1b[31m", facts={"na\udcffme": "x\udcfe"})

    first = state.record(run("a1", findings=(hostile,), error="\udcff"), tell=tell_at_once)
    second = state.record(run("a2", findings=(hostile,)), tell=tell_at_once)

    assert [one.change for one in first] == [Change.OPENED]
    assert second == ()
    assert state.open_findings()[0].finding.facts == {"na\\udcffme": "x\\udcfe"}


def test_only_one_holder_at_a_time_and_the_other_is_told_who(
    open_state: Opener, clock: FakeClock
) -> None:
    holder, other = open_state(), open_state()

    with (
        holder.lease(JOB, "a1"),
        pytest.raises(LeaseHeld, match=r"postgres-backup is already running: run a1, process \d+"),
        other.lease(JOB, "a2"),
    ):
        pass

    with other.lease(JOB, "a3"), holder.lease("nfs-backup", "a4"):
        assert clock.now() == NOON


def test_of_many_that_want_a_lease_one_gets_it(open_state: Opener) -> None:
    states = [open_state() for _ in range(8)]
    start, decided = threading.Barrier(8), threading.Barrier(8)
    got: list[str] = []

    def compete(number: int) -> None:
        start.wait()
        try:
            with states[number].lease(JOB, str(number)):
                got.append("lease")
                decided.wait()
        except LeaseHeld:
            got.append("refused")
            decided.wait()

    threads = [threading.Thread(target=compete, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(got) == ["lease", *["refused"] * 7]


def test_threads_record_at_once_and_nothing_is_lost(open_state: Opener) -> None:
    states = [open_state(), open_state()]

    def record(number: int) -> None:
        for index in range(10):
            subject = f"database/main/db{number}"
            states[number % 2].record(
                run(f"{number}-{index}", job=f"job-{number}", findings=(finding(subject),)),
                tell=tell_at_once,
            )

    threads = [threading.Thread(target=record, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(states[0].runs(limit=100)) == 40
    assert len(states[1].undelivered()) == 4


def test_acceptances_at_once_are_all_remembered(open_state: Opener) -> None:
    stores = [open_state() for _ in range(4)]
    stores[0].record(run("a1", findings=(finding(),)), tell=tell_at_once)
    (entry,) = stores[0].undelivered()

    def accept(number: int) -> None:
        for index in range(15):
            stores[number].mark_accepted(entry.id, target=f"{number}-{index}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(accept, range(4)))

    assert len(stores[0].undelivered()[0].accepted_by) == 60


def test_closing_twice_is_fine(state: State) -> None:
    state.close()
    state.close()


def test_history_is_bounded_and_forgets_the_oldest_first(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opsd.state.tables.RUNS_KEPT", 3)
    state.begin(job=JOB, run_id="unfinished", slot=NOON, at=NOON)

    for number in range(5):
        state.record(run(f"a{number}", minute=-number), tell=tell_nobody)

    assert RUNS_KEPT == 1000
    assert [one.run_id for one in state.runs()] == ["a4", "a3", "a2"]
    assert state.last_slot(JOB, at=NOON + timedelta(hours=1)) == NOON
    assert [one[1] for one in state.running()] == ["unfinished"]


_HOLD = """
import sys, time
from pathlib import Path
from opsd.clock import SystemClock
from opsd.state.sqlite import SqliteState
state = SqliteState(Path(sys.argv[1]), clock=SystemClock())
with state.lease("postgres-backup", "dead"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lease_ends_with_its_process_even_when_that_is_killed(
    state: State, tmp_path: Path
) -> None:
    path = tmp_path / "state" / "state.db"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(LeaseHeld, match="run dead"), state.lease(JOB, "a1"):
            pass
        holder.kill()
        holder.wait()

    with state.lease(JOB, "a2"):
        pass


def test_nobody_holds_a_lease_before_and_after_its_holder(open_state: Opener) -> None:
    state, other = open_state(), open_state()

    before = other.holder(JOB)
    with state.lease(JOB, "a1"):
        during = other.holder(JOB)
        of_another = other.holder("nfs-backup")

    assert before is None
    assert during is not None
    assert (during.run_id, during.since) == ("a1", NOON)
    assert of_another is None
    assert other.holder(JOB) is None


def test_looking_at_who_holds_a_lease_never_keeps_anybody_from_it(open_state: Opener) -> None:
    looking, wanting = open_state(), open_state()
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.0005):
            looking.holder(JOB)

    with ThreadPoolExecutor() as pool:
        looks = [pool.submit(look) for _ in range(2)]
        try:
            for number in range(300):
                with wanting.lease(JOB, f"run{number}"):
                    pass
        finally:
            stop.set()
    assert [one.result() for one in looks] == [None, None]


def backed_up(run_id: str, *, minute: int, repository: str = "local", **changes: object) -> Run:
    artifact = Artifact(
        kind="pg_dump",
        subject="database/main/app",
        repository=repository,
        key=f"database/main/app/{minute}.json",
        size_bytes=12,
        sha256="00",
        level="read_back",
    )
    offsite = replace(artifact, repository="offsite")
    return run(run_id, minute=minute, artifacts=(artifact, offsite), **changes)


def test_a_tally_counts_slots_by_their_last_try_and_backups_once(state: State) -> None:
    error = {"outcome": Outcome.FAILED, "error": "PartialFailure: 1 of 2"}
    state.record(backed_up("a1", minute=0), tell=tell_nobody)
    state.record(backed_up("b1", minute=10, attempt=1, **error), tell=tell_nobody)
    state.record(
        run("b2", minute=12, slot=NOON + timedelta(minutes=10), attempt=2), tell=tell_nobody
    )
    state.record(run("c1", minute=20, job="nfs-backup", **error), tell=tell_nobody)

    tally = state.tally(NOON + timedelta(minutes=10))

    assert tally.outcomes == {JOB: {Outcome.COMPLETED: 1}, "nfs-backup": {Outcome.FAILED: 1}}
    assert tally.healed == {JOB: 1}
    assert tally.backups == 1
    assert tally.newest == {"database/main/app": NOON + timedelta(minutes=10)}


def test_a_tally_knows_what_was_found_since_and_just_before(state: State) -> None:
    for minute in range(3):
        found = finding(f"database/main/db{minute}")
        state.record(run(f"a{minute}", minute=minute, findings=(found,)), tell=tell_nobody)
    state.record(run("b2", minute=3, outcome=Outcome.TIMED_OUT), tell=tell_nobody)

    tally = state.tally(NOON + timedelta(minutes=2))

    assert {subject for _, _, subject in tally.found} == {
        "database/main/db1",
        "database/main/db2",
        f"job/{JOB}",
    }


def test_a_tally_of_many_runs_misses_none(state: State) -> None:
    runs = 123  # more than one page, and no whole number of pages
    for minute in range(runs):
        state.record(run(f"a{minute}", minute=minute), tell=tell_nobody)
    state.begin(job=JOB, run_id="open", slot=NOON, at=NOON)

    assert state.tally(NOON).outcomes == {JOB: {Outcome.COMPLETED: runs}}
    assert state.tally(NOON + timedelta(minutes=runs)).outcomes == {}
