"""`opsd nodes check`: can opsd log in everywhere, and what may it read there?

A machine that lets opsd in and forbids half of what it asks gives half of an answer; which half
is told here, with the line that mends it, and not found out when the disk is dying.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from opsd.cli.calling import Command, Exit, load_config, log_as, wants_json
from opsd.cli.nodetrust import selected
from opsd.cli.progress import shown
from opsd.cli.render import Screen, Tone, print_json, span_text
from opsd.clock import Deadline, SystemClock

if TYPE_CHECKING:
    from opsd.hosts.entrance import Entrance

ASK_S = 120.0  # all machines together


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME]...")
def check(names: tuple[str, ...]) -> int:
    """Log in to each machine, or to each NAME, and say which rights opsd has there.

    Changes nothing. Exits with 1 when opsd cannot log in somewhere; rights that are missing are
    told, and cost only what they are for.
    """
    from opsd.cli.wiring import Wiring  # noqa: PLC0415 - not for --help
    from opsd.hosts.entrance import entrances  # noqa: PLC0415 - likewise

    config = load_config()
    log_as(config, quiet_on_terminal=True)
    wiring = Wiring(config, SystemClock())
    fleet = wiring.fleet(Deadline.after(ASK_S, wiring.clock))
    machines = selected(fleet, names)
    unknown = "" if names else fleet.roster().unknown
    with shown() as progress:
        progress.update(f"log in to {len(machines)} machines")
        found = sorted(entrances(fleet, machines), key=lambda one: one.machine.name)
        progress.finish(f"log in to {len(machines)} machines")
    if wants_json():
        print_json({"nodes": [_as_json(one) for one in found], "unknown": unknown})
    else:
        _show(Screen(), found, unknown)
    is_bad = unknown or any(one.problem is not None for one in found)
    return Exit.FAILED if is_bad else Exit.COMPLETED


def _show(screen: Screen, found: list[Entrance], unknown: str) -> None:
    for one in found:
        if one.problem is not None:
            screen.detail(str(one.problem), indent=0, mark="✗ ", tone=Tone.BAD)
            continue
        is_good = not one.missing and not one.is_clock_wrong
        tone, mark = (Tone.PLAIN, "✓ ") if is_good else (Tone.WARNING, "! ")
        screen.detail(_said(one), indent=0, mark=mark, tone=tone)
        for right in one.missing:
            screen.detail(f"may not run {right.command}: {right.purpose}", indent=2)
    if any(one.missing for one in found):
        screen.line()
        screen.line("The lines for sudoers are in docs/nodes.md.")
    if unknown:
        screen.line(f"There may be more machines: {unknown}", Tone.WARNING)


def _said(one: Entrance) -> str:
    took = f"{one.login.total_seconds() * 1000:.0f} ms"
    rights = (
        "with every right" if one.is_root else f"with {len(one.allowed)} of {one.asked} rights"
    )
    told = f"{one.machine.name}: logged in as {one.user} in {took}, {rights}"
    if not one.is_clock_wrong or one.clock_offset_s is None:
        return told
    off = timedelta(seconds=abs(one.clock_offset_s))
    return (
        f"{told}; its clock is {span_text(off)} {'ahead' if one.clock_offset_s > 0 else 'behind'}"
    )


def _as_json(one: Entrance) -> dict[str, Any]:
    return {
        "name": one.machine.name,
        "address": one.machine.address,
        "user": one.user,
        "login_s": one.login.total_seconds(),
        "clock_offset_s": one.clock_offset_s,
        "is_root": one.is_root,
        "allowed": [right.command for right in one.allowed],
        "missing": [right.command for right in one.missing],
        "error": str(one.problem) if one.problem else "",
    }
