"""Repositories on the real S3 server."""

from __future__ import annotations

from pathlib import Path

from opsd.backup.s3 import S3Repository
from opsd.clients.s3 import Bucket, BucketSettings
from opsd.secrets import Secret
from tests.rig.s3 import S3Server


def bucket_settings(
    server: S3Server, directory: Path, *, endpoint: str = "", lock: bool = False
) -> BucketSettings:
    """A new bucket, its keys in files below `directory`; `endpoint` to go through a proxy."""
    access_key, secret_key = directory / "s3-access-key", directory / "s3-secret-key"
    access_key.write_text(server.access_key)
    secret_key.write_text(server.secret_key)
    return BucketSettings(
        bucket=server.make_bucket(lock=lock),
        endpoint=endpoint or server.endpoint,
        region=server.region,
        access_key=Secret(f"file:{access_key}"),
        secret_key=Secret(f"file:{secret_key}"),
    )


def s3_repository(server: S3Server, directory: Path, *, endpoint: str = "") -> S3Repository:
    """A repository under a prefix in a new bucket."""
    settings = bucket_settings(server, directory, endpoint=endpoint)
    return S3Repository("offsite", Bucket("offsite", settings), prefix="home/opsd")
