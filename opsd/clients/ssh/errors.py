"""Why a machine could not be asked, sorted by what helps.

Each text names the machine, the cause and what to do about it.
"""

from __future__ import annotations

import enum

from opsd.errors import PermanentError, TransientError


class Stage(enum.StrEnum):
    """How far a visit came."""

    CONNECT = "connect"  #: nothing answers at the address
    BANNER = "banner"  #: something accepts connections and does not speak SSH
    KEY_EXCHANGE = "key exchange"  #: it spoke, then fell silent
    LOGIN = "login"  #: it does not say whether opsd may come in
    START = "start"  #: opsd is in, and no shell starts
    SCRIPT = "script"  #: the shell fell silent


class Unreachable(TransientError):
    """It did not answer, or stopped to: another try may find it well."""

    def __init__(self, text: str, *, stage: Stage) -> None:
        """`stage`: how far it came."""
        super().__init__(text)
        self.stage = stage


class HostKeyUnknown(PermanentError):
    """Nobody said yet that this machine is the one that it claims to be."""


class HostKeyChanged(PermanentError):
    """Another machine answers at this address, or this one was installed anew."""


class LoginRefused(PermanentError):
    """The machine does not let opsd in."""


class PasswordExpired(LoginRefused):
    """The machine lets opsd in only after a new password, which it never gives."""


class NoShell(PermanentError):
    """The login works, and there is nothing that understands a script."""


class TooMuchOutput(PermanentError):
    """The answers are longer than opsd is ready to hold."""


class CutOff(TransientError):
    """The script ended before its end: somebody killed it, or the machine went down."""
