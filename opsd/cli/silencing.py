"""`opsd silence`: what nobody wants to hear of for a while, until when, and why.

A silenced finding stays in `opsd findings` and `opsd status`. When the silence ends, what is
still wrong is told.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any

import click

from opsd.alerts import answers
from opsd.alerts.marks import hides, in_force
from opsd.cli.calling import Command, load_config, wants_json
from opsd.cli.expiry import for_option, reason_option, required, until_text
from opsd.cli.render import Screen, Tone, count_text, joined, name_text, print_json
from opsd.cli.selecting import forms
from opsd.clock import SystemClock
from opsd.errors import PermanentError
from opsd.incidents import AlertState, Silence
from opsd.model import Message, OpenFinding, Severity

if TYPE_CHECKING:
    from opsd.cli.wiring import Wiring
    from opsd.state import State, Tell

SHOWN_SUBJECTS = 5


@click.command(cls=Command)
@click.argument("subject", default="", metavar="[SUBJECT]")
@click.option("--check", default="", metavar="PATTERN", help="Only findings of these checks.")
@for_option("silence")
@reason_option("silence")
@click.option("--list", "listing", is_flag=True, help="List the silences, as without SUBJECT.")
@click.option("--end", "ended", default="", metavar="ID", help="End a silence now.")
def silence(
    subject: str, check: str, span: timedelta | None, reason: str, ended: str, *, listing: bool
) -> None:
    """Do not be told about SUBJECT for a while; without SUBJECT, list the silences.

    SUBJECT is what opsd findings lists, such as database/main/shop, or a pattern with * and ?
    such as 'database/main/*'. When the silence ends, what is still wrong is told.
    """
    from opsd.cli.wiring import Wiring  # noqa: PLC0415 - not for --help

    is_new = bool(subject or check)
    if (is_new, listing, bool(ended)).count(True) > 1 or (not is_new and (span or reason)):
        raise click.UsageError("either SUBJECT with --for and --reason, or --list, or --end ID")
    wiring = Wiring(load_config(), SystemClock())
    added: Silence | None = None
    with wiring.state() as state:
        if is_new:
            added = _add(state, wiring, subject, check=check, span=span, reason=reason)
        elif ended:
            _end(state, wiring, ended)
        standing = in_force(state.alerts(), wiring.clock.now())
        findings = state.open_findings()
    if wants_json():
        print_json({"silences": [silence_json(one, findings) for one in standing]})
    elif ended:
        Screen().line(f"Silence {ended} is ended; what is still wrong is told now.")
    else:
        _show(Screen(), [added] if added else standing, findings, wiring)


def silence_json(one: Silence, findings: Sequence[OpenFinding]) -> dict[str, Any]:
    """One silence, as in every JSON output."""
    return {
        "id": one.id,
        "check": one.check,
        "subject": one.subject,
        "since": one.since,
        "until": one.until,
        "reason": one.reason,
        "hides": [
            {"job": entry.job, "check": entry.finding.check, "subject": entry.finding.subject}
            for entry in _hidden(one, findings)
        ],
    }


def silence_text(one: Silence, *, now: datetime, timezone: tzinfo) -> str:
    """What, and until when."""
    what = "everything" if one.subject == "*" else name_text(one.subject)
    of_check = f", {one.check}" if one.check != "*" else ""
    return f"{what}{of_check}: silenced until {until_text(one.until, now, timezone)}"


def _show(
    screen: Screen, silences: Sequence[Silence], findings: Sequence[OpenFinding], wiring: Wiring
) -> None:
    """Print each: what, until when, why, what it hides now, how to end it."""
    now = wiring.clock.now()
    for one in silences:
        screen.line(silence_text(one, now=now, timezone=wiring.config.timezone))
        screen.detail(one.reason, indent=2)
        screen.detail(_hides_text(one, findings), indent=2, tone=Tone.DIM)
        screen.detail(f"opsd silence --end {one.id}", indent=2, mark="> ")
    if not silences:
        screen.line("Nothing is silenced.")


def _hides_text(one: Silence, findings: Sequence[OpenFinding]) -> str:
    hidden = _hidden(one, findings)
    if not hidden:
        return f"hides nothing that is open now{_hint(one, findings)}"
    subjects = list(dict.fromkeys(name_text(entry.finding.subject) for entry in hidden))
    more = len(subjects) - SHOWN_SUBJECTS
    shown = subjects[:SHOWN_SUBJECTS] + ([f"{more} more"] if more > 0 else [])
    return f"hides {count_text(len(hidden), 'finding')} now: {joined(shown)}"


def _hint(one: Silence, findings: Sequence[OpenFinding]) -> str:
    """What may have been meant instead."""
    from opsd.configfile.wording import did_you_mean  # noqa: PLC0415 - not for --help

    if set("*?") & set(one.subject):
        return ""
    subjects = {name_text(entry.finding.subject) for entry in findings}
    if any(subject.startswith(f"{one.subject.rstrip('/')}/") for subject in subjects):
        return f"; did you mean '{one.subject.rstrip('/')}/*'?"
    hint = did_you_mean(one.subject, subjects)
    return f"; {hint}" if hint.startswith("did you") else ""


def _add(
    state: State,
    wiring: Wiring,
    subject: str,
    *,
    check: str,
    span: timedelta | None,
    reason: str,
) -> Silence:
    example = f'opsd silence {subject or "--check " + check} --for 2h --reason "new disk"'
    since = wiring.clock.now()
    added = Silence(
        id=secrets.token_hex(3),
        check=check or "*",
        subject=_as_stored(subject or "*", state.open_findings()),
        since=since,
        until=since + required(span, reason, example=example),
        reason=reason,
    )
    _answer(state, wiring, lambda alerts: answers.silence(alerts, added))
    return added


def _as_stored(subject: str, findings: Sequence[OpenFinding]) -> str:
    """What a person types is what the screen shows; what is compared is the stored form."""
    stored = {
        entry.finding.subject for entry in findings if subject in forms(entry.finding.subject)
    }
    return stored.pop() if len(stored) == 1 else subject


def _end(state: State, wiring: Wiring, silence_id: str) -> None:
    known = {one.id for one in in_force(state.alerts(), wiring.clock.now())}
    if silence_id not in known:
        there = f"there are {joined(sorted(known))}" if known else "there is none"
        raise PermanentError(f"no silence has the id {silence_id}; {there}: opsd silence")
    _answer(state, wiring, lambda alerts: answers.end_silence(alerts, silence_id))


def _answer(state: State, wiring: Wiring, change: Callable[[AlertState], AlertState]) -> None:
    """Change what people asked for, and tell what follows from it, in one step."""
    tell: Tell = wiring.tell

    def answered(
        alerts: AlertState, findings: Sequence[OpenFinding], at: datetime
    ) -> tuple[AlertState, Sequence[Message]]:
        return tell(change(alerts), findings, at)

    state.tell(answered)


def _hidden(one: Silence, findings: Sequence[OpenFinding]) -> list[OpenFinding]:
    return [
        entry
        for entry in findings
        if entry.finding.severity > Severity.INFO and hides(one, entry.finding)
    ]
