"""Put the parts together: from a configuration to stores, repositories and contexts.

The only place that knows which class fulfils which protocol.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from opsd.clock import SystemClock
from opsd.configfile import Config
from opsd.errors import ConfigError

if TYPE_CHECKING:
    from opsd.backup.repository import Repository
    from opsd.state import State

STATE_FILE = "state.db"  # in state_dir


@dataclass(frozen=True)
class Wiring:
    """The parts of one call, made when they are asked for."""

    config: Config
    clock: SystemClock

    @property
    def state_path(self) -> Path:
        """The state file."""
        return self.config.state_dir / STATE_FILE

    @contextmanager
    def state(self) -> Iterator[State]:
        """The opened state; it is made when it is not there yet.

        Raises:
            TransientError, PermanentError: as `opsd.state.State` says.
        """
        from opsd.state.sqlite import SqliteState  # noqa: PLC0415 - not for every command

        state = SqliteState(self.state_path, clock=self.clock)
        try:
            yield state
        finally:
            state.close()

    @functools.cache  # noqa: B019 - lives as long as the call
    def repository(self, name: str) -> Repository:
        """Open a configured repository; nothing is asked of it yet.

        Raises:
            ConfigError: there is none of this name.
        """
        from opsd.backup.opening import open_repository  # noqa: PLC0415 - may load boto3

        try:
            table = self.config.repositories[name]
        except KeyError:
            known = ", ".join(self.config.repositories) or "none"
            raise ConfigError(f"there is no repository {name}; configured: {known}") from None
        return open_repository(name, table)
