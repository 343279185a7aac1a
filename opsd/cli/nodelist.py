"""`opsd nodes list`: one line for each machine, from what the last runs wrote down.

Nobody is asked, so the page is there when the machines are not, and as old as it says. What
could not be read is told as unknown; what nobody looked at yet is never told as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from opsd.cli.calling import Command, load_config, wants_json
from opsd.cli.render import (
    Cell,
    Column,
    Screen,
    Tone,
    age_text,
    count_text,
    name_text,
    print_json,
    severity_cell,
)
from opsd.cli.results import finding_json
from opsd.clock import SystemClock
from opsd.model import Finding, Outcome, Run, Severity, Unseen

if TYPE_CHECKING:
    from opsd.cli.wiring import Wiring
    from opsd.model import OpenFinding
    from opsd.state import State

KIND = "machine/"
STATE = ".state"  # the end of the checks whose facts are the table: ``patches.state``
RUNS = 50  # of each job; a machine that was seen in none of them was not seen for long


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """What one job last wrote down about one machine."""

    name: str  #: ``patches``
    state: Finding
    seen_at: datetime | None  #: the last run that could look; aware UTC; None: long ago
    is_old: bool  #: later runs could not

    @property
    def summary(self) -> str:
        """What it says, without the machine's name."""
        name = self.state.subject.removeprefix(KIND).partition("/")[0]
        return self.state.summary.removeprefix(f"{name}: ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """All that is known about one machine."""

    name: str
    areas: tuple[Area, ...]
    findings: tuple[Finding, ...]  #: open ones, most severe first

    @property
    def seen_at(self) -> datetime | None:
        """When opsd was last in."""
        return max((area.seen_at for area in self.areas if area.seen_at), default=None)


@click.command(cls=Command, name="list")
def list_() -> None:
    """Show the state of every machine as the last runs saw it; opsd nodes does the same."""
    from opsd.cli.wiring import Wiring  # noqa: PLC0415 - not for --help

    clock = SystemClock()
    pages = read_pages(Wiring(load_config(), clock))
    if wants_json():
        print_json({"nodes": [_as_json(page) for page in pages]})
        return
    screen, now = Screen(), clock.now()
    if not pages:
        screen.line("No machine was looked at yet. Try: opsd nodes check", Tone.WARNING)
        return
    _show(screen, pages, now)
    screen.line()
    if not any(page.areas for page in pages):
        screen.line("Nobody looked at them yet. Start it: opsd run-job nodes", Tone.WARNING)
    elif worst := [page for page in pages if page.findings]:
        screen.line(f"{count_text(len(worst), 'machine')} with findings: opsd findings")


def read_pages(wiring: Wiring) -> tuple[Page, ...]:
    """What the state knows about each machine.

    Raises:
        TransientError, PermanentError: the state cannot be read.
    """
    configured = [one.name for one in wiring.config.document.machines]
    with wiring.state() as state:
        return pages_of(state.open_findings(), _runs(state), configured)


def pages_of(
    entries: Sequence[OpenFinding], runs: Sequence[Run], configured: Iterable[str]
) -> tuple[Page, ...]:
    """What is known about each machine, by name. Pure.

    Args:
        entries: all open findings.
        runs: of the jobs that look at machines, newest first.
        configured: names of machines that may not have been looked at yet.
    """
    about = [entry for entry in entries if entry.finding.subject.startswith(KIND)]
    names = {entry.finding.subject.split("/")[1] for entry in about} | set(configured)
    return tuple(
        _page(name, [entry for entry in about if _is_of(entry, name)], runs)
        for name in sorted(names)
    )


def _is_of(entry: OpenFinding, name: str) -> bool:
    return entry.finding.subject.split("/")[1] == name


def _page(name: str, entries: Sequence[OpenFinding], runs: Sequence[Run]) -> Page:
    states = [entry for entry in entries if entry.finding.check.endswith(STATE)]
    others = [one.finding for one in entries if not one.finding.check.endswith(STATE)]
    return Page(
        name=name,
        areas=tuple(
            _area(entry, [run for run in runs if run.job == entry.job])
            for entry in sorted(states, key=lambda one: one.finding.check)
        ),
        findings=tuple(sorted(others, key=lambda one: -one.severity)),
    )


def _area(entry: OpenFinding, runs: Sequence[Run]) -> Area:
    subject = entry.finding.subject
    saw = [run for run in runs if _could_see(run, subject)]
    return Area(
        name=entry.finding.check.removesuffix(STATE),
        state=entry.finding,
        seen_at=saw[0].started_at if saw else None,
        is_old=not saw or saw[0] is not runs[0],
    )


def _could_see(run: Run, subject: str) -> bool:
    told = any(one.subject == subject and one.check.endswith(STATE) for one in run.findings)
    hidden = any(Unseen(subject=one).covers(subject) for one in run.unseen)
    return run.outcome is Outcome.COMPLETED and told and not hidden


def _runs(state: State) -> tuple[Run, ...]:
    """Of the jobs that wrote states of machines, newest first within each job."""
    jobs = {entry.job for entry in state.open_findings() if entry.finding.check.endswith(STATE)}
    return tuple(run for job in sorted(jobs) for run in state.runs(job=job, limit=RUNS))


def _show(screen: Screen, pages: Sequence[Page], now: datetime) -> None:
    names = sorted({area.name for page in pages for area in page.areas})
    columns = [Column("NODE"), Column("STATE")]
    columns += [Column(name.upper(), folds=True) for name in names]
    screen.table([*columns, Column("SEEN")], [_row(page, names, now) for page in pages])


def _row(page: Page, names: Sequence[str], now: datetime) -> list[Cell | str]:
    by_name = {area.name: area for area in page.areas}
    seen = age_text(page.seen_at, now)
    cells = [area_cell(by_name.get(name), now) for name in names]
    return [name_text(page.name), state_cell(page), *cells, seen]


def state_cell(page: Page) -> Cell:
    """How it stands about a machine; unknown when it could not be read lately."""
    bad = [one for one in page.findings if one.severity > Severity.INFO]
    if bad:
        worst = severity_cell(bad[0].severity)
        return Cell(f"{worst.text} ({len(bad)})" if len(bad) > 1 else worst.text, worst.tone)
    if not page.areas or any(area.is_old for area in page.areas):
        return Cell("unknown", Tone.WARNING)
    return Cell("ok", Tone.GOOD)


def area_cell(area: Area | None, now: datetime) -> Cell:
    """What one job said of it."""
    if area is None:
        return Cell("?", Tone.WARNING)
    if area.is_old:
        return Cell(f"{area.summary} ({age_text(area.seen_at, now)})", Tone.WARNING)
    return Cell(area.summary)


def _as_json(page: Page) -> dict[str, Any]:
    return {
        "name": page.name,
        "state": state_cell(page).text.split(" ")[0],
        "seen_at": page.seen_at,
        "areas": {
            area.name: {
                "summary": area.summary,
                "facts": dict(area.state.facts),
                "seen_at": area.seen_at,
                "is_old": area.is_old,
            }
            for area in page.areas
        },
        "findings": [finding_json(one) for one in page.findings],
    }
