"""For how long, and why: what everything that keeps opsd quiet must say.

A silence without an end outlives the reason for it, and hides the next failure.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from typing import Any, TypeVar

import click

from opsd.cli.render import age_text

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

LONGEST = timedelta(days=90)


class Span(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click only
    """A duration as in the configuration, longer than nothing and at most `LONGEST`."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """The duration that was typed."""
        from opsd.config import parse_duration  # noqa: PLC0415 - loads pydantic

        try:
            span = parse_duration(value)
        except (ValueError, OverflowError) as exc:
            self.fail(f"{value}: {exc}", param, ctx)
        if not timedelta(0) < span <= LONGEST:
            self.fail(f"{value}: more than nothing, and at most {LONGEST.days}d", param, ctx)
        return span


def for_option(required_for: str) -> Callable[[FunctionT], FunctionT]:
    """The option ``--for``, given to the command as `span`."""
    return click.option(
        "--for",
        "span",
        type=Span(),
        metavar="DURATION",
        help=f"For how long: 90m, 2h, 3d; at most {LONGEST.days}d. Needed to {required_for}.",
    )


def reason_option(required_for: str) -> Callable[[FunctionT], FunctionT]:
    """The option ``--reason``."""
    text = f"Why, for those who read it later. Needed to {required_for}."
    return click.option("--reason", default="", metavar="TEXT", help=text)


def required(span: timedelta | None, reason: str, *, example: str) -> timedelta:
    """The span, when both were given.

    Raises:
        click.UsageError: they were not; the text shows a call with both.
    """
    missing = [
        option
        for option, given in (("--for", span is not None), ("--reason", bool(reason.strip())))
        if not given
    ]
    if span is None or missing:
        raise click.UsageError(
            f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing, "
            f"for instance: {example}"
        )
    return span


def until_text(until: datetime, now: datetime, timezone: tzinfo) -> str:
    """``Tue 24 Nov 12:00 (in 2 days)``."""
    return f"{until.astimezone(timezone):%a %d %b %H:%M} ({age_text(until, now)})"
