"""What proves a control plane's backup again: programs, and a place that nobody else can enter."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from opsd.backup.etcd.restore import Means, drill_control_plane
from opsd.backup.etcd.settings import Settings
from opsd.backup.etcd.tools import installed

if TYPE_CHECKING:
    from opsd.backup.manifest import Manifest, Verification
    from opsd.backup.repository import Repository
    from opsd.configfile import Config

JOB = "etcd-backup"


def prove(
    repository: Repository, manifest: Manifest, config: Config | None, means: Means
) -> Verification:
    """Restore a backup into an etcd of its own, compare, and remove it.

    Raises:
        ConfigError, TransientError, PermanentError, DeadlineExceeded: nothing is known.
    """
    entry = config.jobs.get(JOB) if config else None
    settings = entry.settings if entry else None
    known = settings if isinstance(settings, Settings) else None
    tools = installed(known.programs if known else None, deadline=means.deadline)
    place = known.drill_dir if known else None
    with tempfile.TemporaryDirectory(prefix="opsd-drill-", dir=place) as directory:
        return drill_control_plane(
            repository, manifest, tools, within=Path(directory), means=means
        )
