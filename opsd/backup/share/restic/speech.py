"""Speak restic: paths as its patterns, its status lines as progress."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from opsd.backup.share.guards import Share
from opsd.backup.share.restic.command import Message
from opsd.progress import Progress

_GLOB = re.compile(r"([\\*?\[\]])")


@dataclass(slots=True)
class Progressing:
    """Turns restic's status lines into progress, and keeps the summary."""

    progress: Progress
    step: str
    total_bytes: int
    summary: Message = field(default_factory=Message)

    def __call__(self, line: bytes) -> None:
        """Take one line of restic's stdout."""
        with contextlib.suppress(msgspec.DecodeError):
            message = msgspec.json.decode(line, type=Message)
            if message.message_type == "summary":
                self.summary = message
            elif message.message_type == "status":
                done = message.bytes_done or message.bytes_restored
                total = self.total_bytes or message.total_bytes or None
                self.progress.update(self.step, done=done, total=total)


def escape(path: str) -> str:
    """A path as a restic pattern that matches it alone."""
    return _GLOB.sub(r"\\\1", path)


def restic_excludes(share: Share, omit: Sequence[str]) -> Iterator[str]:
    """The share's globs and exact paths as patterns on absolute paths.

    restic holds a bare name against every part of the absolute path, so ``cache`` would
    exclude a whole share that is mounted at ``/mnt/cache``.
    """
    root = escape(str(share.path))
    for pattern in share.exclude:
        bare = pattern.rstrip("/")
        yield f"{root}{bare}" if bare.startswith("/") else f"{root}/**/{bare}"
    for path in omit:
        yield f"{root}/{escape(path)}"
