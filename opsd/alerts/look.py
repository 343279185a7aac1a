"""One look at the incidents: note what changed, and tell what may be told.

Limits: it lives for one call of `opsd.alerts.policy.advance`; what it keeps is in the state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

from opsd.alerts import beliefs, digest, drafts, gates
from opsd.alerts.drafts import Draft, Tags
from opsd.alerts.render import News
from opsd.alerts.rules import Policy
from opsd.alerts.tracking import is_ripe, kept, muted_keys
from opsd.incidents import AlertState, Event, Incident
from opsd.model import Change, Message, Severity

EVENTS_KEPT = 200


class Look:
    """What is known, and the messages made so far."""

    def __init__(self, alerts: AlertState, now: datetime, *, policy: Policy) -> None:
        """Begin; `alerts` is already brought up to what is open."""
        self.messages: list[Message] = []
        self._before = alerts
        self._sent = alerts.sent
        self._incidents = {incident.key: incident for incident in alerts.incidents}
        self._events = alerts.events
        self._dropped = alerts.events_dropped
        self._held = {event.tags for event in alerts.events}  # whose events waited before
        self._now = now
        self._policy = policy
        self._zone = ZoneInfo(policy.timezone)
        self._quiet = gates.quiet_at(policy, now)
        self._muted = muted_keys(alerts, self._incidents, now, policy=policy)
        self._following = beliefs.following(alerts.incidents)

    @property
    def alerts(self) -> AlertState:
        """What is known after it."""
        return replace(
            self._before,
            incidents=kept(self._incidents, self._now),
            events=self._events,
            events_dropped=self._dropped,
            sent=self._sent,
            generation=self._before.generation + len(self.messages),
        )

    def note(self) -> None:
        """Write down every change that has lasted and is not muted."""
        events = list(self._events)
        for incident in self._before.incidents:
            if incident.key not in self._muted and is_ripe(incident, self._now):
                events.append(self._event(incident))
                self._incidents[incident.key] = replace(incident, noted=incident.level)
        self._events = tuple(events[-EVENTS_KEPT:])
        self._dropped += len(events) - len(self._events)

    def tell(self) -> None:
        """Make the messages there is room for, the worst first."""
        reminders = self._reminders()
        waiting = [*self._changes(reminders), *self._escalation()]
        waiting.extend(
            drafts.reminder(self._all_news(due), tags, at=self._now, timezone=self._zone)
            for tags, due in reminders.items()
        )
        for draft in sorted(waiting, key=lambda draft: -draft.severity):
            if draft.is_urgent or self._has_room(draft):
                self._send(draft)

    def _has_room(self, draft: Draft) -> bool:
        lately = gates.sent_lately(self._sent, self._now)
        return len(lately) < self._policy.max_per_hour or draft.severity not in lately

    def _event(self, incident: Incident) -> Event:
        change = beliefs.change(incident, incident.noted, incident.level)
        reach = max(one for one in (incident.noted, incident.level) if one is not None)
        return Event(
            at=incident.closed_at or self._now,
            change=change,
            severity=reach,
            job=incident.job,
            check=incident.finding.check,
            subject=incident.finding.subject,
            summary=incident.finding.summary,
            was_told=False,
            opened_at=incident.opened_at,
            tags=self._tags(incident, reach, change),
        )

    def _tags(self, incident: Incident, reach: Severity, change: Change) -> Tags:
        """Whom a change concerns: by the routes, and whoever knows of the incident already."""
        finding = incident.finding
        tags = gates.tags_for(
            self._policy.routes, check=finding.check, subject=finding.subject, severity=reach
        )
        if incident.told_to is not None:
            tags = beliefs.union(tags, incident.told_to)
        if change in (Change.EASED, Change.RESOLVED) and incident.escalated_at is not None:
            tags = beliefs.union(tags, self._policy.escalate_to)
        return tags

    def _changes(self, reminders: dict[Tags, list[Incident]]) -> Iterator[Draft]:
        """One for each set of tags; what was held back comes as a digest, by day only."""
        news: dict[Tags, list[News]] = {}
        for one in self._all_news(self._untold()):
            if self._passes_the_night(one):
                tags = self._tags(one.incident, one.reach, one.change)
                news.setdefault(tags, []).append(one)
        held = set() if self._quiet else self._held
        lately = gates.sent_lately(self._sent, self._now)
        for tags in sorted(held | news.keys()):
            ones = news.get(tags, [])
            if tags not in held:
                yield self._plain(ones, tags, empties_log=self._quiet is None)
                continue
            collected = self._digest(tags, ones, reminders.pop(tags, []))
            unheard = [one for one in ones if one.reach not in lately]
            if unheard and not self._has_room(collected):
                yield self._plain(unheard, tags, empties_log=False)
            else:
                yield collected

    def _plain(self, news: Sequence[News], tags: Tags, *, empties_log: bool) -> Draft:
        return drafts.plain(news, tags, empties_log=empties_log, at=self._now, timezone=self._zone)

    def _digest(self, tags: Tags, news: Sequence[News], due: Sequence[Incident]) -> Draft:
        events = self._events_for(tags)
        told = {one.incident.key for one in news} | {one.key for one in due}
        standing = [
            incident
            for incident in self._incidents.values()
            if incident.noted is not None and incident.key not in self._muted
        ]
        named = told | {event.key for event in events}
        open_ones = [one for one in standing if one.key in named]
        not_over = {one.key for one in standing}
        return drafts.collected(
            digest.Digest(
                when=self._when(events, news),
                open=sorted(self._all_news(open_ones), key=beliefs.order),
                over=digest.over(event for event in events if event.key not in not_over),
                uncounted=self._dropped,
            ),
            tags,
            keys=told | {one.key for one in open_ones if one.told == one.noted},
            events=events,
            at=self._now,
            timezone=self._zone,
        )

    def _when(self, events: Sequence[Event], news: Sequence[News]) -> str:
        changed = (one.incident.changed_at or self._now for one in news)
        first = min((*(event.at for event in events), *changed), default=self._now)
        quiet = gates.quiet_at(self._policy, first)
        if quiet is None:
            return f"Since {first.astimezone(self._zone):%H:%M}"
        return "Last night" if quiet.is_night else "In quiet hours"

    def _untold(self) -> list[Incident]:
        return [
            incident
            for incident in self._incidents.values()
            if incident.told != incident.noted and incident.key not in self._muted
        ]

    def _passes_the_night(self, news: News) -> bool:
        """What is critical, and the end of what somebody was woken for this very night."""
        incident = news.incident
        if self._quiet is None or incident.noted is Severity.CRITICAL:
            return True
        was_woken = incident.told_at is not None and incident.told_at >= self._quiet.start
        return was_woken and incident.told is Severity.CRITICAL

    def _reminders(self) -> dict[Tags, list[Incident]]:
        due: dict[Tags, list[Incident]] = {}
        for incident in self._incidents.values():
            if self._can_be_repeated(incident) and self._is_reminder_due(incident):
                due.setdefault(incident.told_to or (), []).append(incident)
        return due

    def _can_be_repeated(self, incident: Incident) -> bool:
        return (
            incident.told is not None
            and incident.level is not None
            and incident.told == incident.noted
            and incident.acknowledged is None
            and not incident.follows
            and incident.key not in self._muted
        )

    def _is_reminder_due(self, incident: Incident) -> bool:
        is_critical = incident.level is incident.told is Severity.CRITICAL
        every = self._policy.remind_critical if is_critical else self._policy.remind_warning
        if every is None or incident.told_at is None or (self._quiet and not is_critical):
            return False
        return self._now >= incident.told_at + every

    def _escalation(self) -> Iterator[Draft]:
        due = [one for one in self._incidents.values() if self._must_be_escalated(one)]
        before = [one.escalated_at for one in self._incidents.values() if one.escalated_at]
        if due:
            yield drafts.escalation(
                self._all_news(due),
                self._policy.escalate_to,
                at=self._now,
                timezone=self._zone,
                is_urgent=all(self._now - at >= gates.HOUR for at in before),
            )

    def _must_be_escalated(self, incident: Incident) -> bool:
        return (
            bool(self._policy.escalate_to)
            and incident.level is Severity.CRITICAL
            and incident.told is Severity.CRITICAL
            and incident.escalated_at is None
            and incident.first_told_at is not None
            and self._now >= incident.first_told_at + self._policy.escalate_after
            and self._can_be_repeated(incident)
        )

    def _all_news(self, incidents: Sequence[Incident]) -> list[News]:
        return [beliefs.news_of(incident, self._following) for incident in incidents]

    def _events_for(self, tags: Tags) -> tuple[Event, ...]:
        return tuple(event for event in self._events if event.tags == tags)

    def _send(self, draft: Draft) -> None:
        title, body = draft.write()
        number = self._before.generation + len(self.messages) + 1
        self.messages.append(
            Message(
                key=f"alert/{number}",
                severity=draft.severity,
                title=title,
                body=body,
                tags=draft.tags,
            )
        )
        recent = (one for one in self._sent if self._now - one[0] < gates.HOUR)
        self._sent = (*recent, (self._now, draft.severity))
        for key in draft.keys:
            self._incidents[key] = draft.after(self._incidents[key])
        self._dropped -= draft.uncounted
        self._events = tuple(
            replace(event, was_told=event.was_told or event.key in draft.keys)
            for event in self._events
            if not (draft.empties_log and event.tags == draft.tags)
        )
