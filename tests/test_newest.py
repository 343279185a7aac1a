"""The newest good backup of each subject, or that it cannot be told, in bounded time."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from datetime import timedelta
from functools import partial

import pytest

from opsd.backup.catalog import publish
from opsd.backup.manifest import Manifest, Verification, data_key
from opsd.backup.newest import newest_good
from opsd.backup.repository import Repository, StoredObject
from opsd.errors import ConfigError, TransientError
from opsd.testing import RUN_ID, START, MemoryRepository


def store(repository: MemoryRepository, subject: str, *, hours: int, is_good: bool = True) -> None:
    slot, content = START + timedelta(hours=hours), b"archive"
    key = data_key(subject, slot, RUN_ID, ".dump")
    repository.create(key, content)
    manifest = Manifest(
        kind="pg_dump",
        subject=subject,
        slot=slot,
        run_id=RUN_ID,
        created_at=slot,
        key=key,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        verified=(Verification(level="read_back", at=slot, ok=is_good),),
    )
    publish(repository, manifest)


def test_the_newest_good_one_of_all_repositories() -> None:
    usb, bucket = MemoryRepository("usb"), MemoryRepository("bucket")
    store(usb, "database/main/app", hours=1)
    store(bucket, "database/main/app", hours=2)
    store(usb, "database/main/app", hours=3, is_good=False)
    store(usb, "database/main/other", hours=0)
    store(usb, "share/nfs", hours=0)

    found = newest_good([lambda: usb, lambda: bucket], ["database/"], within_s=10)

    assert {name: (where, one.manifest.slot) for name, (where, one) in found.items()} == {
        "database/main/app": ("bucket", START + timedelta(hours=2)),
        "database/main/other": ("usb", START),
    }


def test_nothing_is_an_answer() -> None:
    assert newest_good([MemoryRepository], ["database/"], within_s=10) == {}


def test_a_repository_that_hangs_is_not_waited_for() -> None:
    released = threading.Event()

    class Hanging(MemoryRepository):
        def list(self, prefix: str) -> Iterator[StoredObject]:
            released.wait()
            return super().list(prefix)

    with pytest.raises(TransientError, match=r"not done in 0\.1 s"):
        newest_good([Hanging], ["database/"], within_s=0.1)
    released.set()


def test_why_a_repository_cannot_be_read_is_told() -> None:
    def missing() -> Repository:
        raise ConfigError("repository usb is not configured")

    with pytest.raises(ConfigError, match="usb is not configured"):
        newest_good([partial(missing)], ["database/"], within_s=10)
