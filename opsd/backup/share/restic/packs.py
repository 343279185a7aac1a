"""The pack files in which restic keeps data: which there are, and whether they are sound.

A pack's name is the SHA-256 of its bytes, so reading it back proves it without restic and
without the password, where the packs lie in a repository that opsd reads itself.

Limits: with a destination that only restic reaches, restic hands the bytes out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence

from opsd.backup.repository import Repository
from opsd.backup.share.engine import Damaged
from opsd.backup.share.restic.command import ResticCommand
from opsd.clock import Deadline
from opsd.progress import Progress

_PACK = re.compile(r"[0-9a-f]{64}")


class Packs:
    """The packs of one restic repository."""

    def __init__(self, restic: ResticCommand, *, kept: tuple[Repository, str] | None) -> None:
        """Nothing is touched yet.

        Args:
            restic: the repository's command.
            kept: the opsd repository and the key prefix under which the packs lie, when
                they do.
        """
        self._restic = restic
        self._kept = kept

    def ids(self, *, deadline: Deadline) -> Iterator[str]:
        """The names of all packs."""
        if self._kept is not None:
            repository, prefix = self._kept
            keys = (stored.key.rpartition("/")[2] for stored in repository.list(prefix))
            yield from (key for key in keys if _PACK.fullmatch(key))
            return
        found: list[bytes] = []
        self._restic.call("list", "packs", "--no-lock", deadline=deadline, on_line=found.append)
        yield from (line.decode() for line in found if _PACK.fullmatch(line.decode()))

    def read_back(
        self, packs: Sequence[str], *, deadline: Deadline, progress: Progress, step: str
    ) -> int:
        """Hash packs as they lie in the store; returns the bytes that were read.

        Raises:
            Damaged: the bytes of one are not what its name says.
        """
        total = 0
        for done, pack in enumerate(packs):
            progress.update(step, done=done, total=len(packs), unit="files")
            digest = hashlib.sha256()
            for piece in self._content(pack, deadline=deadline):
                deadline.remaining()
                digest.update(piece)
                total += len(piece)
            if digest.hexdigest() != pack:
                raise Damaged(
                    f"{self._restic.location}: pack {pack[:8]} was stored wrongly: read back,"
                    " its bytes have another SHA-256; check the disk, then run again"
                )
        return total

    def _content(self, pack: str, *, deadline: Deadline) -> Iterator[bytes]:
        if self._kept is not None:
            repository, prefix = self._kept
            return repository.read(f"{prefix}{pack[:2]}/{pack}")
        pieces: list[bytes] = []
        self._restic.call(
            "cat", "--no-lock", "pack", pack, deadline=deadline, on_chunk=pieces.append
        )
        return iter(pieces)
