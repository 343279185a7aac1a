"""Where an engine keeps a share's data: beside the objects of an opsd repository, or elsewhere.

In a directory or a bucket the data lies below ``restic/<share>`` or ``rsync/<share>``, and
needs no address and no key of its own. A `destination` of its own may be anything that
restic speaks, or any machine that rsync reaches over SSH.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from opsd.backup.directory import DirectoryRepository
from opsd.backup.naming import quote
from opsd.backup.repository import Repository
from opsd.backup.s3 import S3Repository
from opsd.backup.share.engine import Engine, EngineName
from opsd.backup.share.guards import Share
from opsd.backup.share.restic.command import Store
from opsd.backup.share.restic.engine import ResticEngine
from opsd.backup.share.rsync.engine import RsyncEngine
from opsd.backup.share.rsync.machine import Machine, parse_destination
from opsd.clients.s3 import BucketSettings
from opsd.clock import Clock
from opsd.errors import ConfigError
from opsd.secrets import Secret

_SFTP = re.compile(r"sftp:(?://)?(?:[^@/:]+@)?[^:/]+.*")
_LOOKUP = {"auto": "auto", "path": "path", "virtual": "dns"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What the configuration says about a share's engine."""

    engine: EngineName
    destination: str = ""  #: empty: in the opsd repository
    password: Secret | None = None  #: restic's
    environment: Mapping[str, Secret] = field(default_factory=dict)  #: for restic's destination
    ssh_identity: Path | None = None
    known_hosts: Path | None = None


def open_engine(
    share: Share, options: EngineOptions, *, repository: Repository, scratch: Path, clock: Clock
) -> Engine:
    """The engine of a share. Nothing is touched yet.

    Raises:
        ConfigError: engine, repository and destination do not fit together.
    """
    if options.engine == "rsync":
        machine, base = _rsync_place(share, options, repository)
        return RsyncEngine(share, machine=machine, base=base, scratch=scratch)
    if options.password is None:
        raise ConfigError(f"share {share.name}: restic needs a password")
    beside = f"restic/{quote(share.name)}"
    packs = None if options.destination else (repository, f"{beside}/data/")
    store = _restic_store(share, options, repository, beside, options.password)
    return ResticEngine(share, store=store, packs=packs, scratch=scratch, clock=clock)


def _rsync_place(
    share: Share, options: EngineOptions, repository: Repository
) -> tuple[Machine, str]:
    if options.destination:
        return parse_destination(
            options.destination,
            identity=options.ssh_identity,
            known_hosts=options.known_hosts,
        )
    if not isinstance(repository, DirectoryRepository):
        raise ConfigError(
            f"share {share.name}: rsync cannot store in repository {repository.name}; choose a "
            'directory repository, engine = "restic", or a destination'
        )
    return Machine(), f"{repository.location}/rsync/{quote(share.name)}"


def _restic_store(
    share: Share, options: EngineOptions, repository: Repository, beside: str, password: Secret
) -> Store:
    if options.destination:
        return Store(
            url=options.destination,
            password=password,
            environment=options.environment,
            options=_sftp_options(options),
        )
    if isinstance(repository, DirectoryRepository):
        return Store(url=f"{repository.location}/{beside}", password=password)
    if isinstance(repository, S3Repository):
        return _in_bucket(repository.settings, f"{repository.prefix}{beside}", password)
    raise ConfigError(
        f"share {share.name}: restic cannot store in repository {repository.name}; "
        "set a destination"
    )


def _in_bucket(settings: BucketSettings, path: str, password: Secret) -> Store:
    endpoint = settings.endpoint.rstrip("/") or f"https://s3.{settings.region}.amazonaws.com"
    lookup = "path" if settings.endpoint and settings.addressing == "auto" else ""
    options = [f"s3.bucket-lookup={lookup or _LOOKUP[settings.addressing]}"]
    if settings.storage_class:
        options.append(f"s3.storage-class={settings.storage_class}")
    return Store(
        url=f"s3:{endpoint}/{settings.bucket}/{path}",
        password=password,
        environment={
            "AWS_ACCESS_KEY_ID": settings.access_key,
            "AWS_SECRET_ACCESS_KEY": settings.secret_key,
        },
        settings={"AWS_DEFAULT_REGION": settings.region},
        options=tuple(options),
    )


def _sftp_options(options: EngineOptions) -> tuple[str, ...]:
    if not _SFTP.fullmatch(options.destination):
        return ()
    machine = Machine(
        host="-", identity=options.ssh_identity, known_hosts=options.known_hosts
    )  # the host is in the URL
    without_program_and_port = machine.ssh()[3:]
    return (f"sftp.args={shlex.join(without_program_and_port)}",)
