"""`opsd ack`: somebody has seen it and takes care, so nobody is reminded or woken for it.

Limits: it is forgotten when the finding worsens, or is over and comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

import click

from opsd.alerts.answers import acknowledge
from opsd.alerts.gates import fits
from opsd.cli.calling import Command, load_config, wants_json
from opsd.cli.render import Screen, Tone, count_text, name_text, print_json
from opsd.cli.selecting import forms
from opsd.clock import SystemClock
from opsd.errors import PermanentError
from opsd.model import Message, OpenFinding, Severity

if TYPE_CHECKING:
    from opsd.incidents import AlertState
    from opsd.state import Tell


@click.command(cls=Command)
@click.argument("subject", default="", metavar="[SUBJECT]")
@click.option("--check", default="*", metavar="PATTERN", help="Only findings of these checks.")
@click.option("--reason", default="", metavar="TEXT", help="Who does what about it.")
@click.option("--all", "everything", is_flag=True, help="Everything that is open.")
def ack(subject: str, check: str, reason: str, *, everything: bool) -> None:
    """Say that you have seen it: no reminder and no escalation until it worsens or comes back.

    SUBJECT is what opsd findings lists, such as database/main/shop, its beginning, or a
    pattern with * and ?.
    """
    from opsd.cli.wiring import Wiring  # noqa: PLC0415 - not for --help

    if bool(subject) == everything:
        raise click.UsageError("name what you have seen, as opsd findings lists it, or --all")
    wiring = Wiring(load_config(), SystemClock())
    with wiring.state() as state:
        seen = fitting(state.open_findings(), subject or "*", check=check)
        if not seen and not everything:
            raise PermanentError(_nothing_fits(state.open_findings(), subject, check=check))
        state.tell(acknowledging(seen, reason=reason, tell=wiring.tell))
    if wants_json():
        from opsd.cli.overview import open_finding_json  # noqa: PLC0415 - not for --help

        print_json({"acknowledged": [open_finding_json(entry, None) for entry in seen]})
        return
    _show(Screen(), seen)


def fitting(
    entries: Sequence[OpenFinding], subject: str, *, check: str = "*"
) -> tuple[OpenFinding, ...]:
    """The findings that a person means and that need somebody, in the given order.

    Args:
        entries: what is open.
        subject: the subject as it is shown or stored, its beginning, or a pattern.
        check: pattern.
    """
    wanted = subject.rstrip("/")
    candidates = [
        entry
        for entry in entries
        if entry.finding.severity > Severity.INFO and fits(check, entry.finding.check)
    ]
    exact = [one for one in candidates if wanted in forms(one.finding.subject)]
    found = exact or [
        one
        for one in candidates
        if any(fits(wanted, form) or form.startswith(f"{wanted}/") for form in _forms(one))
    ]
    return tuple(found)


def acknowledging(seen: Sequence[OpenFinding], *, reason: str, tell: Tell) -> Tell:
    """The `Tell` that marks these findings as seen before it looks at what is to be told."""

    def answered(
        alerts: AlertState, findings: Sequence[OpenFinding], at: datetime
    ) -> tuple[AlertState, Sequence[Message]]:
        for entry in seen:
            alerts = acknowledge(
                alerts,
                findings,
                check=entry.finding.check,
                subject=entry.finding.subject,
                at=at,
                reason=reason,
            )
        return tell(alerts, findings, at)

    return answered


def _forms(entry: OpenFinding) -> tuple[str, ...]:
    return forms(entry.finding.subject)


def _nothing_fits(entries: Sequence[OpenFinding], subject: str, *, check: str) -> str:
    """What to type instead."""
    from opsd.configfile.wording import did_you_mean  # noqa: PLC0415 - not for --help

    of_check = f" of {check}" if check != "*" else ""
    if fitting([_as_warning(entry) for entry in entries], subject, check=check):
        return f"{subject}: only information{of_check}, of which nobody is reminded"
    subjects = {name_text(one.finding.subject) for one in fitting(entries, "*")}
    if not subjects:
        return f"{subject}: nothing is open, so there is nothing to acknowledge"
    return f"{subject}: no open finding{of_check}; {did_you_mean(subject, subjects)}"


def _as_warning(entry: OpenFinding) -> OpenFinding:
    return replace(entry, finding=replace(entry.finding, severity=Severity.WARNING))


def _show(screen: Screen, seen: Sequence[OpenFinding]) -> None:
    if not seen:
        screen.line("Nothing is open.", Tone.GOOD)
        return
    for entry in seen:
        told = f"{name_text(entry.finding.subject)}: {entry.finding.summary}"
        screen.detail(told, indent=0, mark="✓ ")
    count = count_text(len(seen), "finding")
    told = f"{count} acknowledged: no reminders until worse, or over and back."
    screen.line(told, Tone.DIM)
