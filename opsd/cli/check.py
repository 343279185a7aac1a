"""`opsd check`: is everything there that the configuration points to, and may opsd use it?

Asked before the first night, not found out in it. Every job is run dry, so what is tried
here is what a run will do. Nothing is changed but for one small object per repository,
which is written, read back and deleted.
"""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opsd.cli.calling import Command, Exit, load_config, log_as, wants_json
from opsd.cli.progress import shown
from opsd.cli.render import Cell, Screen, Tone, count_text, joined, name_text, print_json
from opsd.cli.results import DRY_RUN
from opsd.cli.wiring import Wiring
from opsd.clock import Deadline, SystemClock
from opsd.errors import ConfigError, LeaseHeld, OpsdError
from opsd.model import Finding, Outcome, Run, Severity
from opsd.secrets import SHORTEST_REDACTED, Secret, describe

if TYPE_CHECKING:
    from pydantic import BaseModel

    from opsd.configfile import JobEntry
    from opsd.hosts.entrance import Entrance
    from opsd.progress import Progress

OLDEST_SANE = datetime(2025, 1, 1, tzinfo=UTC)  # a machine without a battery wakes up in 1970
LOGINS_S = 120.0  # to all machines together
_MOUNTS = Path("/proc/self/mounts")


class Health(enum.StrEnum):
    """How one check came out."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNKNOWN = "unknown"  #: it could not be told; never to be read as ok


_MARKS = {
    Health.OK: Cell("✓", Tone.GOOD),
    Health.WARNING: Cell("!", Tone.WARNING),
    Health.FAILED: Cell("✗", Tone.BAD),
    Health.UNKNOWN: Cell("?", Tone.WARNING),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One thing that was tried."""

    what: str  #: ``repository/usb``
    health: Health
    detail: str
    remedy: str = ""


@click.command(cls=Command)
def check() -> int:
    """Try everything that the configuration points to, and say what is to be done.

    Exits with 1 when something failed or could not be told.
    """
    config = load_config()
    log_as(config, quiet_on_terminal=True)
    wiring = Wiring(config, SystemClock())
    results: list[Checked] = []
    screen = None if wants_json() else Screen()
    with shown() as progress:
        for checked in _everything(wiring, progress):
            results.append(checked)
            if screen and not screen.is_terminal:
                _show(screen, checked)
    if screen is None:
        print_json({"path": str(config.path), "checks": [_as_json(one) for one in results]})
    else:
        for checked in results if screen.is_terminal else ():
            _show(screen, checked)
        screen.line()
        screen.line(*_verdict(results))
    bad = {Health.FAILED, Health.UNKNOWN}
    return Exit.FAILED if any(one.health in bad for one in results) else Exit.COMPLETED


def _everything(wiring: Wiring, progress: Progress) -> Iterator[Checked]:
    config = wiring.config
    yield Checked(what="configuration", health=Health.OK, detail=str(config.path))
    yield _clock(wiring)
    yield from _secrets(config.document)
    yield _state(wiring)
    for name in config.repositories:
        progress.update(f"repository {name}")
        yield _repository(wiring, name)
        progress.finish(f"repository {name}")
    if config.document.ssh:
        progress.update("log in to machines")
        yield from _machines(wiring)
        progress.finish("log in to machines")
    for entry in config.jobs.values():
        progress.update(f"dry run of {entry.job.name}")
        yield from _job(wiring, entry, progress)
        progress.finish(f"dry run of {entry.job.name}")
    if not config.jobs:
        yield Checked(
            what="jobs",
            health=Health.WARNING,
            detail="no job is configured, so nothing is backed up",
            remedy="add a table [jobs.postgres-backup] or [jobs.nfs-backup]",
        )
    yield from _targets(wiring)


def _clock(wiring: Wiring) -> Checked:
    now = wiring.clock.now()
    if now < OLDEST_SANE:
        return Checked(
            what="clock",
            health=Health.FAILED,
            detail=f"this machine believes that it is {now:%Y-%m-%d}",
            remedy="set the clock, then: timedatectl set-ntp true",
        )
    local = now.astimezone(wiring.config.timezone)
    return Checked(what="clock", health=Health.OK, detail=f"{local:%Y-%m-%d %H:%M %Z}")


def _secrets(document: BaseModel) -> Iterator[Checked]:
    for place, secret in secrets_of(document):
        what = f"secret {secret}"
        try:
            value = secret.reveal()
        except ConfigError as exc:
            detail = f"{exc}; used by {place}"
            yield Checked(
                what=what, health=Health.FAILED, detail=detail, remedy=_how_to_give(secret)
            )
            continue
        if len(value) < SHORTEST_REDACTED:
            detail = "is so short that it cannot be kept out of logs"
            yield Checked(
                what=what, health=Health.WARNING, detail=detail, remedy="choose a longer one"
            )
        elif _is_public(secret):
            path = secret.reference.removeprefix("file:")
            yield Checked(
                what=what,
                health=Health.WARNING,
                detail="every user of this machine can read it",
                remedy=f"chmod 600 {path}",
            )
        else:
            yield Checked(what=what, health=Health.OK, detail="is there")


def secrets_of(table: Any, place: str = "") -> Iterator[tuple[str, Secret]]:
    """Every secret of a table and of the tables in it, with the key that names it."""
    if isinstance(table, Secret):
        yield place, table
    elif isinstance(table, dict):
        for key, value in table.items():
            yield from secrets_of(value, f"{place}.{key}")
    elif isinstance(table, tuple):
        for index, value in enumerate(table):
            yield from secrets_of(value, f"{place}[{index}]")
    elif hasattr(table, "model_fields_set"):
        fields = type(table).model_fields
        for name, value in table:
            yield from secrets_of(value, f"{place}.{fields[name].alias or name}".lstrip("."))


def _how_to_give(secret: Secret) -> str:
    kind, _, name = secret.reference.partition(":")
    return f"export {name}=..." if kind == "env" else f"write it to {name}, readable by opsd only"


def _is_public(secret: Secret) -> bool:
    kind, _, name = secret.reference.partition(":")
    if kind != "file":
        return False
    return bool(Path(name).stat().st_mode & stat.S_IROTH)


def _state(wiring: Wiring) -> Checked:
    what = "state directory"
    file_system = _file_system(wiring.config.state_dir)
    if file_system.startswith(("nfs", "cifs", "smb")):
        return Checked(
            what=what,
            health=Health.FAILED,
            detail=f"{wiring.config.state_dir} is on {file_system}: its locks cannot be trusted",
            remedy="set opsd.state_dir to a directory on a local disk",
        )
    try:
        with wiring.state() as state:
            state.running()
    except OpsdError as exc:
        return Checked(what=what, health=Health.FAILED, detail=str(exc))
    return Checked(what=what, health=Health.OK, detail=str(wiring.config.state_dir))


def _file_system(path: Path) -> str:
    """The type of the file system that holds `path`; empty when it cannot be told."""
    try:
        mounts = _MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return ""
    fields = (line.split(" ") for line in mounts.splitlines())
    types = {parts[1]: parts[2] for parts in fields}  # the last mount of a place counts
    real = Path(os.path.realpath(path))
    places = (real, *real.parents)
    return next((types[str(one)] for one in places if str(one) in types), "")


def _repository(wiring: Wiring, name: str) -> Checked:
    what = f"repository/{name}"
    try:
        repository = wiring.repository(name)
        repository.probe()
    except OpsdError as exc:
        return Checked(what=what, health=Health.FAILED, detail=str(exc))
    detail = f"{repository.location}: written, read back, listed, deleted"
    return Checked(what=what, health=Health.OK, detail=detail)


def _machines(wiring: Wiring) -> Iterator[Checked]:
    """Every login, one by one, and what the cluster could not say."""
    from opsd.hosts.entrance import entrances  # noqa: PLC0415 - not for every configuration

    fleet = wiring.fleet(Deadline.after(LOGINS_S, wiring.clock))
    try:
        roster = fleet.roster()
        found = sorted(entrances(fleet, roster.machines), key=lambda one: one.machine.name)
    except OpsdError as exc:
        yield Checked(what="machines", health=Health.FAILED, detail=str(exc))
        return
    if roster.unknown:
        yield Checked(what="machines", health=Health.UNKNOWN, detail=roster.unknown)
    for one in found:
        yield _login(one)


def _login(one: Entrance) -> Checked:
    what = one.machine.subject
    if one.problem is not None:
        return Checked(what=what, health=Health.FAILED, detail=str(one.problem))
    if one.missing:
        return Checked(
            what=what,
            health=Health.WARNING,
            detail=f"logged in as {one.user}, who may not run {one.missing[0].command} as root"
            + f" and {len(one.missing) - 1} more" * (len(one.missing) > 1),
            remedy=f"opsd nodes check {one.machine.name}; docs/nodes.md has the lines for sudoers",
        )
    return Checked(what=what, health=Health.OK, detail=f"logged in as {one.user}")


def _job(wiring: Wiring, entry: JobEntry, progress: Progress) -> Iterator[Checked]:
    name = entry.job.name
    try:
        now = wiring.clock.now().replace(microsecond=0)
        run = wiring.run(entry, slot=now, is_scheduled=False, dry_run=True, progress=progress)
    except LeaseHeld as exc:
        yield Checked(
            what=name, health=Health.UNKNOWN, detail=str(exc), remedy="opsd check, later"
        )
        return
    except OpsdError as exc:
        yield Checked(what=name, health=Health.FAILED, detail=describe(exc))
        return
    yield from (_of_finding(finding) for finding in run.findings if _is_told(finding))
    yield _of_run(run, entry)


def _is_told(finding: Finding) -> bool:
    return not finding.check.startswith(DRY_RUN)


def _of_finding(finding: Finding) -> Checked:
    healths = {Severity.CRITICAL: Health.FAILED, Severity.WARNING: Health.WARNING}
    return Checked(
        what=name_text(finding.subject),
        health=healths.get(finding.severity, Health.OK),
        detail=finding.summary,
        remedy=finding.remedy,
    )


def _of_run(run: Run, entry: JobEntry) -> Checked:
    if run.outcome is not Outcome.COMPLETED:
        detail = f"dry run {run.outcome.value.replace('_', ' ')}: {run.error}"
        return Checked(what=run.job, health=Health.FAILED, detail=detail)
    subjects = {
        finding.subject
        for finding in run.findings
        if finding.check.startswith(DRY_RUN) and not finding.subject.startswith("repository/")
    }
    would = f", would back up {count_text(len(subjects), 'subject')}" if subjects else ""
    enabled = "" if entry.enabled else "; it is disabled, so it is never due"
    return Checked(what=run.job, health=Health.OK, detail=f"dry run completed{would}{enabled}")


def _targets(wiring: Wiring) -> Iterator[Checked]:
    if not wiring.config.targets:
        yield Checked(
            what="alerts",
            health=Health.WARNING,
            detail="there is no target, so a failed backup is told to nobody",
            remedy="add [[alerts.targets]]",
        )
        return
    from opsd.clients.notify import Notifier  # noqa: PLC0415 - loads apprise

    for target in wiring.config.targets:
        what = f"alerts target {target.name}"
        try:
            Notifier((target,)).check(target.name)
        except OpsdError as exc:
            yield Checked(what=what, health=Health.FAILED, detail=str(exc))
        else:
            yield Checked(
                what=what,
                health=Health.OK,
                detail="its URL is understood; whether it rings: opsd notify-test",
            )


def _show(screen: Screen, checked: Checked) -> None:
    mark = _MARKS[checked.health]
    told = f"{checked.what}: {checked.detail}"
    tone = Tone.PLAIN if checked.health is Health.OK else mark.tone
    screen.detail(told, indent=0, mark=f"{mark.text} ", tone=tone)
    if checked.remedy:
        screen.detail(checked.remedy, indent=2, mark="> ")


def _as_json(checked: Checked) -> dict[str, str]:
    return {
        "what": checked.what,
        "state": checked.health.value,
        "detail": checked.detail,
        "remedy": checked.remedy,
    }


def _verdict(results: list[Checked]) -> tuple[str, Tone]:
    counts = {health: sum(one.health is health for one in results) for health in Health}
    parts = [f"{counts[health]} {health.value}" for health in Health if counts[health]]
    text = f"{joined(parts)}."
    if counts[Health.FAILED] or counts[Health.UNKNOWN]:
        return f"{text} Mend what is marked ✗, then: opsd check", Tone.BAD
    if counts[Health.WARNING]:
        return f"{text} Backups will run.", Tone.WARNING
    return f"{text} Ready: opsd run-job backup", Tone.GOOD
