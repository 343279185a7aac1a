"""Which engine can read a share's backup: the configured one, or the one the manifest names.

Limits: without a configuration only data that lies in the repository is found; restic's
password then comes from ``RESTIC_PASSWORD``.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import nfs_backup
from opsd.backup import naming
from opsd.backup.catalog import Backup
from opsd.backup.manifest import Level, Manifest, Verification
from opsd.backup.repository import Repository
from opsd.backup.share.engine import Damaged, Engine
from opsd.backup.share.guards import Share
from opsd.backup.share.opening import EngineOptions, open_engine
from opsd.clock import Deadline, SystemClock
from opsd.errors import ConfigError, PermanentError
from opsd.progress import Progress
from opsd.secrets import Secret

if TYPE_CHECKING:
    from opsd.configfile import Config

KINDS = ("restic", "rsync")
PASSWORD_VARIABLE = "RESTIC_PASSWORD"  # noqa: S105 - the name of a variable


@contextlib.contextmanager
def engine_of(
    manifest: Manifest, repository: Repository, config: Config | None
) -> Iterator[Engine]:
    """The engine that made a backup.

    Raises:
        ConfigError: no configured share fits, and the manifest does not suffice.
    """
    with tempfile.TemporaryDirectory(prefix="opsd-share-") as scratch:
        table = _table(manifest, config)
        if table is not None:
            yield nfs_backup.engine_for(
                table, repository, scratch=Path(scratch), clock=SystemClock()
            )
        else:
            yield _from_manifest(manifest, repository, Path(scratch))


def check_share(
    backup: Backup,
    repository: Repository,
    config: Config | None,
    *,
    deadline: Deadline,
    progress: Progress,
) -> Verification:
    """Have the engine read all data of one backup."""
    with engine_of(backup.manifest, repository, config) as engine:
        try:
            detail = engine.check(backup.manifest, deadline=deadline, progress=progress)
        except Damaged as exc:
            return _verdict(deadline, str(exc), ok=False)
    return _verdict(deadline, detail, ok=True)


def _verdict(deadline: Deadline, detail: str, *, ok: bool) -> Verification:
    now = deadline.clock.now()
    return Verification(level=Level.READ_BACK.label, at=now, ok=ok, detail=detail)


def _table(manifest: Manifest, config: Config | None) -> nfs_backup.ShareTable | None:
    """The configured share that this is a backup of, if its engine is still the same."""
    entry = config.jobs.get(nfs_backup.JOB.name) if config else None
    settings = entry.settings if entry else None
    if not isinstance(settings, nfs_backup.Settings):
        return None
    return next(
        (
            table
            for table in settings.shares
            if table.share().subject == manifest.subject and table.engine == manifest.kind
        ),
        None,
    )


def _from_manifest(manifest: Manifest, repository: Repository, scratch: Path) -> Engine:
    if manifest.kind not in KINDS:
        raise PermanentError(f"{manifest.subject}: this opsd cannot read a {manifest.kind}")
    has_password = bool(os.environ.get(PASSWORD_VARIABLE))
    if manifest.kind == "restic" and not has_password:
        raise ConfigError(
            f"{manifest.subject} is not a configured share: set {PASSWORD_VARIABLE} to the "
            "password of its restic repository"
        )
    options = EngineOptions(
        engine="restic" if manifest.kind == "restic" else "rsync",
        password=Secret(f"env:{PASSWORD_VARIABLE}") if has_password else None,
    )
    name = naming.unquote(manifest.subject.partition("/")[2])
    source = str(manifest.source.get("path", "/"))
    share = Share(name=name, path=Path(source), mounted=False)
    return open_engine(share, options, repository=repository, scratch=scratch, clock=SystemClock())
