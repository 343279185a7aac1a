"""What machines answered, as values; what cannot be understood is as unreadable as no answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from opsd.hosts.packages import answers as packages
from opsd.hosts.script import Probe
from opsd.upgrade.facts import MachineFacts
from opsd.upgrade.reading import Unreadable

T = TypeVar("T")


def understood(machine: MachineFacts, probe: Probe, read: Callable[[str], T]) -> T:
    """What a probe that succeeded says.

    Raises:
        Unreadable: it did not arrive, failed, or makes no sense.
    """
    return _read(machine, probe, machine.text(probe.name), read)


def partly_understood(machine: MachineFacts, probe: Probe, read: Callable[[str], T]) -> T:
    """The same where a failure is part of the answer: grep says so of a file that is not there.

    Raises:
        Unreadable: it did not arrive or makes no sense; it failed and says nothing.
    """
    section = machine.section(probe.name)
    if not section.is_ok and not section.stdout.strip() and section.stderr.strip():
        raise Unreadable(f"{machine.name}: {probe.name}", section.complaint())
    return _read(machine, probe, section.stdout, read)


def _read(machine: MachineFacts, probe: Probe, text: str, read: Callable[[str], T]) -> T:
    where = f"{machine.name}: {probe.name}"
    try:
        return read(text)
    except packages.Unreadable as exc:
        raise Unreadable(where, str(exc), fix=exc.fix) from exc
    except ValueError as exc:
        raise Unreadable(where, str(exc)) from exc
