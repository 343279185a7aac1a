"""Which good backup is the newest of each subject, told in bounded time?

Asked when something has just gone down, perhaps the server that the repository lies on: then
the answer is that it cannot be told, and nobody waits for it.

Limits: a thread that hangs on a dead server stays behind until the process ends.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from opsd.backup.catalog import Backup, Condition, read_catalog
from opsd.backup.repository import Repository
from opsd.errors import OpsdError, TransientError


def newest_good(
    repositories: Sequence[Callable[[], Repository]], prefixes: Sequence[str], *, within_s: float
) -> dict[str, tuple[str, Backup]]:
    """By subject, the newest good backup and the name of the repository that holds it.

    Args:
        repositories: open one each.
        prefixes: of keys, such as ``database/main/``.
        within_s: for all of them together.

    Raises:
        TransientError: it took too long.
        ConfigError, TransientError, PermanentError: a repository cannot be read.
    """
    answers: queue.SimpleQueue[dict[str, tuple[str, Backup]] | OpsdError] = queue.SimpleQueue()

    def look() -> None:
        try:
            answers.put(_newest(repositories, prefixes))
        except OpsdError as exc:
            answers.put(exc)

    threading.Thread(target=look, name="newest-backups", daemon=True).start()
    try:
        answer = answers.get(timeout=within_s)
    except queue.Empty:
        raise TransientError(f"read what backups there are: not done in {within_s:g} s") from None
    if isinstance(answer, OpsdError):
        raise answer
    return answer


def _newest(
    repositories: Sequence[Callable[[], Repository]], prefixes: Sequence[str]
) -> dict[str, tuple[str, Backup]]:
    newest: dict[str, tuple[str, Backup]] = {}
    for opened in repositories:
        repository = opened()
        for prefix in prefixes:
            for backup in read_catalog(repository, prefix).backups:
                subject, known = backup.manifest.subject, newest.get(backup.manifest.subject)
                if backup.condition is Condition.GOOD and (
                    known is None or known[1].manifest.created_at < backup.manifest.created_at
                ):
                    newest[subject] = (repository.name, backup)
    return newest
