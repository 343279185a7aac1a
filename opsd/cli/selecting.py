"""From what a person types to one backup. Pure.

A selector is the exact key of a manifest, a subject (``database/main/shop``, written as
it is shown or as it stands in keys), or the beginning of subjects up to a slash. Several
backups that fit are never guessed among: the newest good one of one subject, or a question.

Limits: a name that holds a slash is selected by its key form, ``a=2Fb``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

import click

from opsd.backup.catalog import Backup, Condition
from opsd.backup.naming import parse_stamp, stamp, unquote
from opsd.cli.render import name_text
from opsd.errors import PermanentError

SHOWN_CHOICES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A backup and the name of the repository that holds it."""

    repository: str
    backup: Backup

    @property
    def subject(self) -> str:
        """What it is a copy of."""
        return self.backup.manifest.subject

    @property
    def slot(self) -> datetime:
        """The due time that it answers, aware UTC."""
        return self.backup.manifest.slot

    @property
    def is_good(self) -> bool:
        """Whether it may be relied on."""
        return self.backup.condition is Condition.GOOD


def matching(backups: Iterable[Held], selector: str) -> tuple[Held, ...]:
    """All backups that fit, in the given order; an empty selector fits all."""
    wanted = selector.strip("/")
    everything = tuple(backups)
    for fits in (_is_key, _is_subject, _is_beginning):
        if found := tuple(one for one in everything if not wanted or fits(one, wanted)):
            return found
    return ()


def newest(backups: Iterable[Held]) -> tuple[Held, ...]:
    """The newest of each series in each repository; a good one before one that is not."""
    best: dict[tuple[str, str], Held] = {}
    for one in backups:
        place = (one.repository, one.subject)
        if place not in best or (one.is_good, one.slot) > (best[place].is_good, best[place].slot):
            best[place] = one
    return tuple(best.values())


def one_backup(
    backups: Sequence[Held], selector: str, *, slot: str = "", until: datetime | None = None
) -> Held:
    """The backup that is meant.

    Args:
        backups: all there are; of equals, the first one counts.
        selector: see above.
        slot: only this slot, as listed: ``20261122T030000Z``.
        until: the newest good one whose slot is not later than this.

    Raises:
        click.UsageError: several subjects fit; the text lists them.
        PermanentError: nothing fits, or nothing that fits is good.
    """
    found = matching(backups, selector)
    if not found:
        known = sorted({one.subject for one in backups})
        raise PermanentError(f"no backup fits {selector}; there are {_choices(known)}")
    subjects = sorted({one.subject for one in found})
    if len(subjects) > 1:
        raise click.UsageError(f"{selector} fits several; name one: {_choices(subjects)}")
    if len({one.backup.key for one in found}) == 1 and _is_key(found[0], selector):
        return next((one for one in found if one.is_good), found[0])  # asked for by its key
    if slot:
        found = tuple(one for one in found if stamp(one.slot) == slot)
    if until:
        found = tuple(one for one in found if one.slot <= until)
    good = [one for one in found if one.is_good]
    if not good:
        raise PermanentError(_none_good(name_text(subjects[0]), found, slot=slot, until=until))
    return max(good, key=lambda one: one.slot)  # of equals, max takes the first


def parse_moment(text: str, timezone: tzinfo) -> datetime:
    """A time as a person or a listing writes it; without an offset, in `timezone`.

    Raises:
        click.UsageError: it is none.
    """
    try:
        return parse_stamp(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        hint = 'write it as "2026-11-22 03:00" or 20261122T030000Z'
        raise click.UsageError(f"{text} is not a time; {hint}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone)).astimezone(UTC)


def _is_key(one: Held, wanted: str) -> bool:
    return wanted in (one.backup.key, one.backup.key.removesuffix(".json"))


def _is_subject(one: Held, wanted: str) -> bool:
    return wanted in forms(one.subject)


def _is_beginning(one: Held, wanted: str) -> bool:
    return any(form.startswith(f"{wanted}/") for form in forms(one.subject))


def forms(subject: str) -> tuple[str, ...]:
    """How a subject may be written: as in keys, as it is shown, and as it really is."""
    try:
        real = "/".join(unquote(part) for part in subject.split("/"))
    except (UnicodeError, ValueError):
        real = subject
    return subject, name_text(subject), real


def _choices(subjects: Sequence[str]) -> str:
    if not subjects:
        return "no backups at all"
    shown = ", ".join(name_text(subject) for subject in subjects[:SHOWN_CHOICES])
    return shown + (f" and {len(subjects) - SHOWN_CHOICES} more" * (len(subjects) > SHOWN_CHOICES))


def _none_good(subject: str, found: Sequence[Held], *, slot: str, until: datetime | None) -> str:
    when = f" of slot {slot}" if slot else f" until {until:%Y-%m-%d %H:%M} UTC" if until else ""
    if not found:
        return f"{subject}: no backup{when}; see opsd backups list {subject}"
    keys = ", ".join(one.backup.key for one in found[:SHOWN_CHOICES])
    return (
        f"{subject}: no good backup{when}; to restore one that is not proven or is known to be "
        f"damaged, name its key: {keys}"
    )
