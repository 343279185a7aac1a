"""The alert policy against a reader who believes what messages say, over any sequence of events.

The reader reads titles and paragraphs, as people do; nothing here looks into the policy's
memory, except to carry it through the store's own text form at every look.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from opsd.alerts.policy import Maintenance, Policy, acknowledge, advance, end_silence, silence
from opsd.incidents import AlertState, Silence
from opsd.model import Finding, Message, OpenFinding, Severity
from opsd.state.records import pack, unpack

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = timedelta(hours=1)
REMIND = {Severity.CRITICAL: timedelta(hours=4), Severity.WARNING: timedelta(days=1)}
ESCALATE_AFTER = timedelta(minutes=30)
STEADY = {"s/patient": timedelta(minutes=5)}
CAUSES = {"s/effect": "s/cause"}
SUBJECTS = ("s/plain", "s/other", "s/cause", "s/effect", "s/patient", "s/worked-on")
AT_ONCE = ("s/plain", "s/other", "s/cause")  # nothing but the night and storms holds these
MAINTAINED = "s/worked-on"  # every day from 04:00 to 06:00
STARTS = (
    datetime(2026, 11, 22, 11, 0, tzinfo=UTC),
    datetime(2026, 10, 24, 18, 0, tzinfo=UTC),  # the clock is put back in this night
    datetime(2026, 3, 28, 18, 0, tzinfo=UTC),  # and forward in this one
)
STEPS = tuple(
    timedelta(minutes=minutes) for minutes in (0, 1, 6, 16, 31, 61, 125, 305, 24 * 60 + 1)
)
PARAGRAPH = re.compile(r"^([A-Z][A-Za-z, ]+): about (s/[a-z-]+)$")
OVER = re.compile(r"^- about (s/[a-z-]+), ")
URGENT = {"Act now": Severity.CRITICAL, "Act within days": Severity.WARNING}


@dataclass
class Reader:
    """Somebody with a phone."""

    believes: dict[str, Severity] = field(default_factory=dict)
    heard: dict[str, datetime] = field(default_factory=dict)  #: when last told or reminded
    told_critical: dict[str, datetime] = field(default_factory=dict)
    escalated: set[str] = field(default_factory=set)


class AlertMachine(RuleBasedStateMachine):
    is_sound = False  # whether the last look went as it should

    @initialize(
        start=st.sampled_from(STARTS),
        cap=st.sampled_from((2, 12)),
        quiet=st.sampled_from(("", "22:00-07:00", "12:00-15:00")),
    )
    def begin(self, start: datetime, cap: int, quiet: str) -> None:
        self.now = start
        self.quiet = quiet
        self.policy = Policy(
            timezone="Europe/Berlin",
            quiet_hours=quiet,
            max_per_hour=cap,
            remind_critical=REMIND[Severity.CRITICAL],
            remind_warning=REMIND[Severity.WARNING],
            escalate_after=ESCALATE_AFTER,
            escalate_to=("boss",),
            maintenance=(
                Maintenance(
                    name="updates",
                    schedule="0 4 * * *",
                    duration=timedelta(hours=2),
                    subjects=(MAINTAINED,),
                ),
            ),
        )
        self.alerts = AlertState()
        self.truth: dict[str, OpenFinding] = {}
        self.silenced: dict[str, tuple[str, datetime]] = {}  # id, until
        self.acknowledged: set[str] = set()
        self.reader = Reader()
        self.sent: list[datetime] = []  # of the last hour
        # Also those that a wrong clock dated into the future: they may hold others back.
        self.counted: list[tuple[datetime, Severity]] = []
        self.keys: set[str] = set()
        self.owed: set[str] = set()  # was open, unknown to the reader: must be named at last

    # What happens.

    @rule(subject=st.sampled_from(SUBJECTS), severity=st.sampled_from(Severity))
    def found(self, subject: str, severity: Severity) -> None:
        known = self.truth.get(subject)
        self.truth[subject] = OpenFinding(
            finding=Finding(
                check="x.y",
                subject=subject,
                severity=severity,
                summary=f"about {subject}",
                steady_for=STEADY.get(subject, timedelta(0)),
                cause=CAUSES.get(subject, ""),
            ),
            job="j",
            opened_at=known.opened_at if known else self.now,
        )
        believed = self.reader.believes.get(subject, Severity.INFO)
        if subject in AT_ONCE and severity > believed and not self.is_muted(subject):
            self.owed.add(subject)
        self.look()

    @rule(subject=st.sampled_from(SUBJECTS))
    def gone(self, subject: str) -> None:
        self.truth.pop(subject, None)
        self.look()

    @rule(step=st.sampled_from(STEPS))
    def time_passes(self, step: timedelta) -> None:
        self.now += step
        self.look()

    @rule(by=st.sampled_from((timedelta(hours=2), timedelta(days=400))))
    def clock_goes_back(self, by: timedelta) -> None:
        self.sent = [at for at in self.sent if self.now - at < HOUR]
        self.now -= by
        self.sent = [min(at, self.now) for at in self.sent]
        self.counted = [(min(at, self.now), severity) for at, severity in self.counted]
        for times in (self.reader.heard, self.reader.told_critical):
            times.update({subject: min(at, self.now) for subject, at in times.items()})
        self.look()

    @rule(by=st.sampled_from((timedelta(hours=3), timedelta(days=40))))
    def clock_goes_forward(self, by: timedelta) -> None:
        self.now += by
        self.look()

    @rule(subject=st.sampled_from(SUBJECTS), hours=st.integers(1, 30))
    def silenced_by_somebody(self, subject: str, hours: int) -> None:
        added = Silence(
            id=subject,
            check="x.*",
            subject=subject,
            since=self.now,
            until=self.now + hours * HOUR,
            reason="r",
        )
        self.alerts = silence(self.alerts, added)
        self.silenced[subject] = (added.id, added.until)
        self.owed.discard(subject)
        self.look()

    @precondition(lambda self: self.silenced)
    @rule(data=st.data())
    def silence_ends(self, data: st.DataObject) -> None:
        subject = data.draw(st.sampled_from(sorted(self.silenced)))
        self.alerts = end_silence(self.alerts, self.silenced.pop(subject)[0])
        self.look()

    @precondition(lambda self: self.reader.believes)
    @rule(data=st.data())
    def somebody_acknowledges(self, data: st.DataObject) -> None:
        subject = data.draw(st.sampled_from(sorted(self.reader.believes)))
        self.alerts = acknowledge(
            self.alerts, tuple(self.truth.values()), subject=subject, at=self.now
        )
        if self.level(subject) is not None:
            self.acknowledged.add(subject)
        self.look()

    # What a look does, and what a reader makes of it.

    def look(self) -> None:
        self.is_sound = False
        self.silenced = {
            subject: (known, until)
            for subject, (known, until) in self.silenced.items()
            if self.now < until
        }
        open_findings = tuple(self.truth.values())
        before = self.alerts
        self.alerts, messages = advance(before, open_findings, self.now, policy=self.policy)
        restarted = unpack(pack(before), AlertState)
        assert advance(restarted, open_findings, self.now, policy=self.policy) == (
            self.alerts,
            messages,
        ), "a restart changed what is told"
        for message in messages:
            self.read(message)
        again = advance(self.alerts, open_findings, self.now, policy=self.policy)
        assert again == (self.alerts, ()), "a second look at the same moment changed something"
        self.is_sound = True

    def read(self, message: Message) -> None:
        assert message.key not in self.keys, "two messages with one key"
        self.keys.add(message.key)
        self.sent = [at for at in (*self.sent, self.now) if self.now - at < HOUR]
        assert len(self.sent) <= self.policy.max_per_hour + 2, "more than the cap"
        before = [one for one in self.counted if self.now - one[0] < HOUR]
        self.counted = [*before, (self.now, message.severity)]
        assert len(message.title) <= 200
        assert len(message.body) < 3500
        if self.is_quiet():
            assert message.severity is Severity.CRITICAL, "woken for a warning"
        is_digest = re.match(r"Last night|In quiet hours|Since \d\d:\d\d", message.title)
        tells_something = False
        for line in message.body.splitlines():
            if found := PARAGRAPH.match(line):
                self.owed.discard(found[2])
                assert not self.is_muted(found[2]), "told what nobody wanted to hear"
                self.read_paragraph(found[1], found[2], message, is_digest=bool(is_digest))
            elif found := OVER.match(line):
                assert is_digest
                self.owed.discard(found[1])
                self.forget(found[1])
            else:
                continue
            tells_something = True
        assert tells_something, "a message about nothing"

    def read_paragraph(
        self, heading: str, subject: str, message: Message, *, is_digest: bool
    ) -> None:
        believed = self.reader.believes.get(subject)
        if self.is_quiet() and heading in ("Resolved", "Less urgent", "No longer urgent"):
            woken_at = self.reader.heard[subject]
            assert woken_at >= self.quiet_since(), "woken for the end of what was told by day"
        if message.tags == ("boss",):
            self.read_escalation(subject)
        elif heading.startswith("Still open, "):
            assert believed is not None, "reminded of what was never told"
            assert subject not in self.acknowledged, "reminded of what was acknowledged"
            level = self.level(subject)
            assert level is not None, "reminded of what is over"
            if self.is_quiet():
                assert level is Severity.CRITICAL, "reminded of a warning at night"
            assert self.now - self.reader.heard[subject] >= REMIND[level], "reminded too soon"
            self.reader.heard[subject] = self.now
        elif heading in ("Resolved", "No longer urgent"):
            assert believed is not None, "the end of what was never told"
            self.forget(subject)
        elif heading == "Less urgent":
            assert believed is Severity.CRITICAL, "eased what was not urgent"
            self.believe(subject, Severity.WARNING)
        else:
            level = URGENT.get(heading) or self.level(subject)
            assert level is not None, "told what is not so"
            if not is_digest:
                assert believed is None or believed < level, "told twice"
            if self.is_quiet():
                assert level is Severity.CRITICAL, "told a warning at night"
            self.believe(subject, level)

    def read_escalation(self, subject: str) -> None:
        assert subject not in self.reader.escalated, "escalated twice"
        assert subject not in self.acknowledged, "escalated what was acknowledged"
        assert self.now - self.reader.told_critical[subject] >= ESCALATE_AFTER
        self.reader.escalated.add(subject)

    def believe(self, subject: str, level: Severity) -> None:
        believed = self.reader.believes.get(subject)
        if believed is None or level > believed:
            self.reader.escalated.discard(subject)
            self.reader.told_critical[subject] = self.now
        if believed is not None and level > believed:
            self.acknowledged.discard(subject)
        self.reader.believes[subject] = level
        self.reader.heard[subject] = self.now

    def forget(self, subject: str) -> None:
        self.reader.believes.pop(subject, None)
        self.reader.escalated.discard(subject)
        self.acknowledged.discard(subject)

    # What is so.

    def level(self, subject: str) -> Severity | None:
        entry = self.truth.get(subject)
        severity = entry.finding.severity if entry else Severity.INFO
        return severity if severity > Severity.INFO else None

    def is_quiet(self) -> bool:
        if not self.quiet:
            return False
        local = self.now.astimezone(BERLIN)
        if self.quiet == "12:00-15:00":
            return 12 <= local.hour < 15
        return local.hour >= 22 or local.hour < 7

    def quiet_since(self) -> datetime:
        """When the quiet hours of this moment began."""
        local = self.now.astimezone(BERLIN)
        if self.quiet == "12:00-15:00":
            return local.replace(hour=12, minute=0, second=0, microsecond=0)
        evening = local if local.hour >= 22 else local - timedelta(days=1)
        return evening.replace(hour=22, minute=0, second=0, microsecond=0)

    def is_muted(self, subject: str) -> bool:
        hour = self.now.astimezone(BERLIN).hour
        return subject in self.silenced or (subject == MAINTAINED and 4 <= hour < 6)

    def lately(self) -> list[Severity]:
        return [severity for at, severity in self.counted if self.now - at < HOUR]

    def is_full(self) -> bool:
        return len(self.lately()) >= self.policy.max_per_hour

    @invariant()
    def what_nothing_holds_is_known(self) -> None:
        if not self.is_sound:
            return
        for subject in AT_ONCE:
            level = self.level(subject)
            if level is None or self.is_muted(subject) or (self.is_quiet() and level < 2):
                continue
            if not self.is_full() or level not in self.lately():
                believed = self.reader.believes.get(subject)
                assert believed is not None, f"{subject} was not told"
                assert believed >= level, f"{subject} was not told"

    def teardown(self) -> None:
        """Once every gate is open and time has passed, people believe what is so."""
        if not self.is_sound:
            return  # it has failed already, or never began
        self.now = max([self.now, *(until for _, until in self.silenced.values())]) + timedelta(
            days=2
        )
        for _ in range(30):
            self.now += HOUR
            self.look()
        local = self.now.astimezone(BERLIN).replace(hour=20)
        self.now = max(self.now, local.astimezone(UTC))
        for _ in range(4):
            self.now += timedelta(minutes=25)
            self.look()
        for subject in SUBJECTS:
            level = self.level(subject)
            cause = CAUSES.get(subject, "")
            if cause and level is not None and (self.level(cause) or Severity.INFO) >= level:
                continue  # told with what it follows from
            assert self.reader.believes.get(subject) == level, f"{subject}: believed wrongly"
        assert not self.owed, "never named"
        assert not self.alerts.events
        assert {one.finding.subject for one in self.alerts.incidents} <= set(self.truth)


TestAlertMachine = AlertMachine.TestCase
TestAlertMachine.settings = settings(
    max_examples=200,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
