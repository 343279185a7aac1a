"""Every error that opsd raises on purpose, sorted by who can do something about it."""

from __future__ import annotations


class OpsdError(Exception):
    """Base class; never raised itself. The text names the object and the action."""


class ConfigError(OpsdError):
    """The operator must change config.toml or its surroundings. Exit status 2."""


class TransientError(OpsdError):
    """The world may be fine in a minute: connection refused, 5xx, lock busy."""


class PermanentError(OpsdError):
    """Trying again cannot help: 403, host key changed, wrong password."""


class DeadlineExceeded(OpsdError):
    """The run used up its time. The runner records ``timed_out``."""


class PartialFailure(OpsdError):
    """Some subjects failed, each told by a finding of its own; the others are fine.

    A job raises it at its end: the run is ``failed``, what was done stays done.
    """

    def __init__(self, text: str, *, may_pass: bool = False) -> None:
        """`may_pass`: at least one of them failed for what may be over in a minute."""
        super().__init__(text)
        self.may_pass = may_pass


class LeaseHeld(OpsdError):
    """Another run of the job is under way. Exit status 75."""


class SlotAnswered(LeaseHeld):
    """Another run has answered the slot: nothing is left to do for it. Exit status 75."""
