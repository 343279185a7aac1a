"""What was read, or why it could not be: asking an unreadable fact for its value raises.

A check never sees an empty list where nobody was let in. It need not look after that either:
what it could not read makes its result unknown, by construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar, cast

T = TypeVar("T")


class Unreadable(Exception):
    """Something that a check needs could not be read. Ends the check as unknown."""

    def __init__(self, where: str, why: str, *, fix: str = "", is_forbidden: bool = False) -> None:
        """`where` it would have been read, ``pods``; `fix`: the command or page that helps."""
        super().__init__(f"{where}: {why}")
        self.where, self.why, self.fix = where, why, fix
        self.is_forbidden = is_forbidden


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """One fact."""

    _value: T | None
    problem: Unreadable | None = None  #: why there is no value

    @classmethod
    def of(cls, value: T) -> Reading[T]:
        """What was read."""
        return cls(value)

    @classmethod
    def failed(
        cls, where: str, why: str, *, fix: str = "", is_forbidden: bool = False
    ) -> Reading[T]:
        """That it could not be read."""
        return cls(None, Unreadable(where, why, fix=fix, is_forbidden=is_forbidden))

    @property
    def value(self) -> T:
        """What was read.

        Raises:
            Unreadable: it could not be.
        """
        if self.problem is not None:
            raise self.problem
        return cast("T", self._value)
