"""The checks, in the order in which they are shown. To add one: a `Check`, and a name here."""

from __future__ import annotations

from opsd.upgrade.check import Check

CHECKS: tuple[Check, ...] = ()
