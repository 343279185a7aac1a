"""Versions of Kubernetes and of what runs beside it, compared as numbers: 1.35.10 > 1.35.9."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:[-+.~_].*)?")


@dataclass(frozen=True, slots=True, order=True)
class Minor:
    """A minor release: ``1.36``."""

    major: int
    number: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``1.36`` or ``v1.36``.

        Raises:
            ValueError: it is none.
        """
        match = re.fullmatch(r"v?(\d+)\.(\d+)", text)
        if match is None:
            raise ValueError("this is no minor release; write it like 1.36")
        return cls(int(match[1]), int(match[2]))

    @property
    def next(self) -> Minor:
        """The one after it."""
        return Minor(self.major, self.number + 1)

    @property
    def previous(self) -> Minor:
        """The one before it."""
        return Minor(self.major, self.number - 1)

    def __sub__(self, other: Minor) -> int:
        """How many minor releases it is ahead; negative: behind."""
        return (self.major - other.major) * 1000 + self.number - other.number

    def __str__(self) -> str:
        return f"{self.major}.{self.number}"


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A release: ``1.36.2``. What stands behind the numbers is not compared."""

    major: int
    number: int
    patch: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``v1.36.2``, ``1.36.2-1.1``, ``3.6.6-0``, ``v1.36.2+k3s1`` or ``2.1``.

        Raises:
            ValueError: it does not begin with a version.
        """
        match = _VERSION.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is no version")
        return cls(int(match[1]), int(match[2]), int(match[3] or 0))

    @classmethod
    def of_image(cls, image: str) -> Self:
        """From the tag of an image: ``registry.k8s.io/etcd:3.6.6-0``.

        Raises:
            ValueError: it has no tag, or one that is no version.
        """
        name = image.partition("@")[0].rpartition("/")[2]
        _, colon, tag = name.partition(":")
        if not colon:
            raise ValueError(f"the image {image!r} has no tag")
        return cls.parse(tag)

    @property
    def minor(self) -> Minor:
        """Its minor release."""
        return Minor(self.major, self.number)

    def __str__(self) -> str:
        return f"{self.major}.{self.number}.{self.patch}"
