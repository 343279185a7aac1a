"""One job, or one look at the state, must not stop all the others.

Limits: it is the third broad handler of the program, beside the runner's and the delivery's.
What it lets pass is in the log, with its place in the code when it was not foreseen.
"""

from __future__ import annotations

from types import TracebackType

import structlog

from opsd.errors import OpsdError
from opsd.secrets import describe

log = structlog.get_logger()


class KeepGoing:
    """Within the block an error is logged as `event`, and ends nothing but the block."""

    def __init__(self, event: str, **about: str) -> None:
        self._event = event
        self._about = about

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        match exc:
            case OpsdError():
                log.warning(self._event, error=describe(exc), **self._about)
            case Exception():
                log.error(self._event, exc_info=exc, **self._about)
        return isinstance(exc, Exception)
