"""What every store of the state must do for messages: what people know, the outbox, proof."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from opsd.incidents import Acknowledgement, AlertState, Event, Incident, Silence
from opsd.model import Change, Finding, Message, OpenFinding, Outcome, Run, Severity
from opsd.state import LONGEST_WAIT, State
from opsd.testing import FakeClock, tell_at_once, tell_nobody
from opsd.triage import OWN

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
JOB = "postgres-backup"
Opener = Callable[[], State]


def finding(subject: str, **changes: object) -> Finding:
    values: dict[str, object] = {
        "check": "alerts.channel_down",
        "subject": subject,
        "severity": Severity.WARNING,
        "summary": "it is down",
        "facts": {"error": "refused", "waiting": 3},
        "cause": "channels",
        "steady_for": timedelta(minutes=5),
    }
    return Finding(**{**values, **changes})  # type: ignore[arg-type]


def message(key: str, *, tags: tuple[str, ...] = ()) -> Message:
    return Message(key=key, severity=Severity.WARNING, title=f"t {key}", body="b", tags=tags)


def put(state: State, *messages: Message) -> list[int]:
    """Their numbers in the outbox."""
    state.tell(lambda alerts, _open, _at: (alerts, messages))
    numbers = {entry.message.key: entry.id for entry in state.undelivered()}
    return [numbers[one.key] for one in messages]


def observe(state: State, *findings: Finding, seen: Sequence[str] = ()) -> list[Change]:
    changes = state.observe(OWN, findings=findings, seen=seen, tell=tell_nobody)
    return [one.change for one in changes]


def test_what_was_observed_opens_stays_and_is_over_when_its_subject_was_seen(
    open_state: Opener, clock: FakeClock
) -> None:
    down, other = finding("channel/phone"), finding("channel/chat")
    opened = observe(open_state(), down, other)
    [first, _] = open_state().open_findings(job=OWN)
    clock.advance(timedelta(hours=1))

    unchanged = observe(open_state(), down)
    resolved = observe(open_state(), seen=["channel/phone"])

    assert opened == [Change.OPENED, Change.OPENED]
    assert (first.finding, first.opened_at) in [(down, NOON), (other, NOON)]
    assert unchanged == []
    assert resolved == [Change.RESOLVED]
    assert [one.finding for one in open_state().open_findings(job=OWN)] == [other]


def test_a_finding_about_a_seen_subject_stays_while_it_is_found(state: State) -> None:
    observe(state, finding("channel/phone"))

    worse = finding("channel/phone", severity=Severity.CRITICAL)
    changes = observe(state, worse, seen=["channel/phone"])

    assert changes == [Change.WORSENED]
    assert [one.finding for one in state.open_findings(job=OWN)] == [worse]


def test_what_is_observed_is_nothing_to_the_findings_of_jobs(state: State) -> None:
    state.record(
        Run(
            job=JOB,
            run_id="a1",
            slot=NOON,
            started_at=NOON,
            duration=timedelta(0),
            outcome=Outcome.COMPLETED,
            findings=(finding("channel/phone"),),
        ),
        tell=tell_nobody,
    )

    observe(state, seen=["channel/phone"])

    assert [one.job for one in state.open_findings()] == [JOB]


def test_an_observation_and_what_people_are_told_of_it_stand_or_fall_together(
    state: State,
) -> None:
    def broken(
        _alerts: AlertState, _open: Sequence[OpenFinding], _at: datetime
    ) -> tuple[AlertState, Sequence[Message]]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        state.observe(OWN, findings=[finding("channel/phone")], seen=(), tell=broken)
    failed = state.open_findings()
    lasting = finding("channel/phone", steady_for=timedelta(0), cause="")
    state.observe(OWN, findings=[lasting], seen=(), tell=tell_at_once)

    assert failed == ()
    assert len(state.undelivered()) == 1
    assert [one.finding.subject for one in state.alerts().incidents] == ["channel/phone"]


def test_what_people_know_comes_back_as_it_was(open_state: Opener) -> None:
    incident = Incident(
        job=JOB,
        finding=finding("share/nfs \\udcff"),
        opened_at=NOON,
        closed_at=NOON + timedelta(hours=1),
        told=Severity.CRITICAL,
        first_told_at=NOON,
        told_at=NOON + timedelta(microseconds=1),
        comebacks=3,
        acknowledged=Acknowledgement(at=NOON, reason="I know\nit"),
        escalated_at=NOON,
    )
    silence = Silence(
        id="a1b2c3", check="nfs.*", subject="*", since=NOON, until=NOON, reason="disk on its way"
    )
    event = Event(
        at=NOON,
        change=Change.EASED,
        severity=Severity.WARNING,
        job=JOB,
        check="x.y",
        subject="s/a",
        summary="was odd",
        was_told=True,
    )
    known = AlertState(
        incidents=(incident,),
        silences=(silence,),
        events=(event,),
        events_dropped=2,
        sent=((NOON, Severity.CRITICAL),),
        generation=7,
        report_slot=NOON,
    )

    before = open_state().alerts()
    open_state().tell(lambda _alerts, _open, _at: (known, ()))

    assert before == AlertState()
    assert open_state().alerts() == known


def test_telling_changes_nothing_when_there_is_nothing_to_tell(
    state: State, clock: FakeClock
) -> None:
    state.observe(OWN, findings=[finding("channel/phone", cause="")], seen=(), tell=tell_at_once)
    clock.advance(timedelta(minutes=10))
    calls: list[datetime] = []

    def look(
        alerts: AlertState, open_findings: Sequence[OpenFinding], at: datetime
    ) -> tuple[AlertState, Sequence[Message]]:
        calls.append(at)
        return tell_at_once(alerts, open_findings, at)

    for _ in range(3):
        state.tell(look)
    told = [entry.message.key for entry in state.undelivered()]

    # Once to see that there is something, once more to write it, and once for each other look.
    assert len(calls) == 4
    assert len(told) == 1
    assert state.alerts().generation == 1


def test_told_at_last_what_lasted_long_enough(state: State, clock: FakeClock) -> None:
    lasting = finding("channel/phone", cause="")
    state.observe(OWN, findings=[lasting], seen=(), tell=tell_at_once)

    clock.advance(lasting.steady_for - timedelta(seconds=1))
    state.tell(tell_at_once)
    before = state.undelivered()
    clock.advance(timedelta(seconds=1))
    state.tell(tell_at_once)

    assert before == ()
    assert "it is down" in state.undelivered()[0].message.title


def test_a_message_keeps_whom_it_is_for(open_state: Opener) -> None:
    put(open_state(), message("a", tags=("night", "phone")), message("b"))

    assert [entry.message.tags for entry in open_state().undelivered()] == [
        ("night", "phone"),
        (),
    ]


def test_a_target_that_need_not_take_messages_gets_one_instead(
    open_state: Opener, clock: FakeClock
) -> None:
    state = open_state()
    ids = put(state, message("a"), message("b"), message("c"))
    state.mark_accepted(ids[0], target="chat")
    clock.advance(timedelta(days=1))

    state.give_up(ids[:2], target="phone", instead=message("collapse/phone/2", tags=("phone",)))

    found = {entry.message.key: entry for entry in open_state().undelivered()}
    assert {key: entry.accepted_by for key, entry in found.items()} == {
        "a": {"chat", "phone"},
        "b": {"phone"},
        "c": frozenset(),
        "collapse/phone/2": frozenset(),
    }
    assert found["collapse/phone/2"].created_at == NOON + timedelta(days=1)
    assert found["collapse/phone/2"].message.tags == ("phone",)


def test_giving_up_twice_makes_one_message(state: State) -> None:
    ids = put(state, message("a"))

    for _ in range(2):
        state.give_up(ids, target="phone", instead=message("collapse/phone/1"))

    assert [entry.message.key for entry in state.undelivered()] == ["a", "collapse/phone/1"]


def test_a_message_that_a_wrong_clock_put_off_is_due(state: State) -> None:
    [as_far_as_it_goes, too_far] = put(state, message("a"), message("b"))
    state.mark_failed(as_far_as_it_goes, error="e", next_try_at=NOON + LONGEST_WAIT)
    state.mark_failed(
        too_far, error="e", next_try_at=NOON + LONGEST_WAIT + timedelta(microseconds=1)
    )

    assert [entry.message.key for entry in state.due_messages(NOON)] == ["b"]


def test_proof_that_it_can_be_written_changes_nothing_else(state: State) -> None:
    put(state, message("a"))
    before = (state.undelivered(), state.alerts(), state.runs(), state.open_findings())

    for _ in range(3):
        state.prove_writable()

    assert (state.undelivered(), state.alerts(), state.runs(), state.open_findings()) == before
