"""From a table ``[repositories.NAME]`` to the repository. Nothing is touched or connected yet."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from opsd.backup.directory import DirectoryRepository
from opsd.backup.naming import InvalidKey
from opsd.backup.s3 import S3Repository
from opsd.clients.s3 import Bucket, BucketSettings
from opsd.errors import ConfigError

if TYPE_CHECKING:
    from opsd.backup.repository import Repository
    from opsd.config import DirectoryTable, S3Table


def open_repository(name: str, table: DirectoryTable | S3Table) -> Repository:
    """The repository that `table` describes.

    Raises:
        ConfigError: the prefix in a bucket holds what keys cannot.
    """
    if table.type == "directory":
        return DirectoryRepository(name, table.path, mounted=table.mounted)
    settings = BucketSettings(
        bucket=table.bucket,
        endpoint=table.endpoint,
        region=table.region,
        access_key=table.access_key,
        secret_key=table.secret_key,
        addressing=table.addressing,
        checksums=table.checksums,
        storage_class=table.storage_class,
        lock=timedelta(days=table.lock_days),
    )
    try:
        return S3Repository(name, Bucket(name, settings), prefix=table.prefix)
    except InvalidKey as exc:
        raise ConfigError(f"repositories.{name}.prefix: {exc}") from exc
