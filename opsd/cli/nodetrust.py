"""`opsd nodes trust`: the one moment in which a person decides whom opsd will believe.

Who answers at an address may be anybody. The fingerprint is compared with what the machine's own
console says; then its key is written down, and from then on opsd talks to this machine only. A
key that changed is never replaced unasked.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from opsd.cli.calling import Command, Exit, load_config, log_as, wants_json
from opsd.cli.progress import shown as progress_shown
from opsd.cli.render import Screen, Tone, print_json
from opsd.clock import Deadline, SystemClock
from opsd.errors import ConfigError

if TYPE_CHECKING:
    from opsd.clients.ssh.known import HostKey
    from opsd.hosts.machine import Machine
    from opsd.hosts.passing import Shown
    from opsd.hosts.trust import Trust
    from opsd.hosts.visiting import SshFleet

ASK_S = 120.0  # all machines together
_FILES = {
    "ssh-ed25519": "ssh_host_ed25519_key.pub",
    "ssh-rsa": "ssh_host_rsa_key.pub",
}
_ECDSA_FILE = "ssh_host_ecdsa_key.pub"


class Decision(enum.StrEnum):
    """What became of one machine."""

    KNOWN = "known"  #: it was believed before, and shows the same key
    TRUSTED = "trusted"
    DECLINED = "declined"
    CHANGED = "changed"  #: it shows another key, and nobody said ``--replace``
    UNREACHABLE = "unreachable"


_TONES = {
    Decision.KNOWN: Tone.DIM,
    Decision.TRUSTED: Tone.GOOD,
    Decision.DECLINED: Tone.WARNING,
    Decision.CHANGED: Tone.BAD,
    Decision.UNREACHABLE: Tone.BAD,
}
_DONE = (Decision.KNOWN, Decision.TRUSTED)


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--fingerprint",
    default="",
    metavar="SHA256:...",
    help="Believe the one NAME if it shows this one; nothing is asked.",
)
@click.option("--yes", is_flag=True, help="Believe whoever answers; only on a wire you trust.")
@click.option("--replace", is_flag=True, help="Also forget a key that was believed before.")
def trust(names: tuple[str, ...], fingerprint: str, *, yes: bool, replace: bool) -> int:
    """Say that machines are who they claim to be, by the fingerprints of their keys.

    Without NAME: all machines. Those that are not known yet are shown, and believed if you say
    so. Exits with 1 when a machine did not answer, shows another key, or was not believed.
    """
    from opsd.cli.wiring import Wiring  # noqa: PLC0415 - not for --help

    if fingerprint and len(names) != 1:
        raise click.UsageError("--fingerprint is of one machine: name it")
    config = load_config()
    log_as(config, quiet_on_terminal=True)
    wiring = Wiring(config, SystemClock())
    fleet = wiring.fleet(Deadline.after(ASK_S, wiring.clock))
    machines = selected(fleet, names)
    with progress_shown() as progress:
        progress.update(f"ask {len(machines)} machines for their keys")
        shown = sorted(fleet.show(machines), key=lambda one: one.machine.name)
        progress.finish(f"ask {len(machines)} machines for their keys")
    screen = None if wants_json() else Screen()
    deciding = _Deciding(
        screen, fingerprint=fingerprint, yes=yes, replace=replace, trust=wiring.trust()
    )
    decisions = [(one, deciding.decide(one)) for one in shown]
    if screen is None:
        print_json({"nodes": [_as_json(one, decision) for one, decision in decisions]})
    return Exit.COMPLETED if all(decision in _DONE for _, decision in decisions) else Exit.FAILED


def selected(fleet: SshFleet, names: Sequence[str]) -> tuple[Machine, ...]:
    """The machines of these names; of none: all.

    Raises:
        ConfigError: there is no such machine, or not all can be known.
    """
    roster = fleet.roster()
    by_name = {machine.name: machine for machine in roster.machines}
    missing = [name for name in names if name not in by_name]
    if missing:
        known = ", ".join(by_name) or "none"
        because = f"; the cluster could not be asked: {roster.unknown}" * bool(roster.unknown)
        raise ConfigError(f"there is no machine {missing[0]} (known: {known}{because})")
    return tuple(by_name[name] for name in names) if names else roster.machines


class _Deciding:
    """What a person said beforehand, and is asked."""

    def __init__(
        self, screen: Screen | None, *, fingerprint: str, yes: bool, replace: bool, trust: Trust
    ) -> None:
        self.screen = screen
        self.fingerprint = fingerprint
        self.yes = yes
        self.replace = replace
        self.trust = trust
        self.is_explained = False

    def decide(self, one: Shown) -> Decision:
        """Say what the machine shows, and write it down if it may be believed."""
        if one.key is None:
            return self._said(Decision.UNREACHABLE, str(one.problem))
        key, name = one.key, one.machine.name
        if key in one.believed:
            return self._said(Decision.KNOWN, f"{name}: known: {key.fingerprint}")
        if one.believed and not self.replace:
            was = " or ".join(known.fingerprint for known in one.believed)
            told = f"{name}: it shows {key.fingerprint}, known is {was}; nothing was changed"
            return self._said(Decision.CHANGED, told, f"opsd nodes trust --replace {name}")
        if not self._is_believed(one, key):
            return self._declined(name, key.fingerprint)
        self.trust.believe(name, (key,))
        return self._said(Decision.TRUSTED, f"{name}: believed from now on: {key.fingerprint}")

    def _declined(self, name: str, fingerprint: str) -> Decision:
        told = f"{name}: not believed: {fingerprint}"
        if self.fingerprint:
            return self._said(Decision.DECLINED, f"{told}, expected was {self.fingerprint}")
        remedy = f"opsd nodes trust {name} --fingerprint {fingerprint}"
        return self._said(Decision.DECLINED, told, f"if its console says the same: {remedy}")

    def _is_believed(self, one: Shown, key: HostKey) -> bool:
        if self.fingerprint:
            return key.fingerprint == self.fingerprint
        if self.yes or self.screen is None or not sys.stdin.isatty():
            return self.yes
        self._explain(key)
        told = f"{one.machine.name} at {one.machine.address} shows {key.fingerprint}"
        self.screen.line(told, Tone.TITLE)
        return click.confirm("Does its console say the same?", default=False)

    def _explain(self, key: HostKey) -> None:
        """Say once how fingerprints are compared."""
        if self.screen is None or self.is_explained:
            return
        self.is_explained = True
        file = _FILES.get(key.type, _ECDSA_FILE)
        self.screen.line("On the console of each machine, not over SSH, this prints the same:")
        self.screen.detail(f"ssh-keygen -lf /etc/ssh/{file}", indent=2)
        self.screen.line()

    def _said(self, decision: Decision, text: str, remedy: str = "") -> Decision:
        if self.screen is not None:
            self.screen.line(text, _TONES[decision])
            if remedy:
                self.screen.detail(remedy, indent=2, mark="> ")
        return decision


def _as_json(one: Shown, decision: Decision) -> dict[str, Any]:
    return {
        "name": one.machine.name,
        "address": one.machine.address,
        "port": one.machine.port,
        "type": one.key.type if one.key else None,
        "fingerprint": one.key.fingerprint if one.key else None,
        "decision": decision.value,
        "error": str(one.problem) if one.problem else "",
    }
