"""Backups in an S3 bucket: off the house, or on a server in it.

A dump has no known length, must not fill the memory of a small machine, and a run that is
killed must leave nothing that looks like a backup. So an object goes up in parts of equal
size, a bounded number of them at once for the whole repository, and appears only when its
parts are completed under a key that is still free.

Limits: an object has at most 10,000 parts, so without a `size_hint` it ends at 78 GiB.
Where the bucket keeps versions, what was deleted still takes space: see
docs/repositories.md. Servers that cannot list uploads keep what a killed run left.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import re
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial

from opsd.backup.naming import check_key, check_prefix, is_part
from opsd.backup.repository import (
    AlreadyExists,
    NotFound,
    Stored,
    StoredObject,
    Unfinished,
    Upload,
    try_rights,
)
from opsd.clients.s3 import Bucket, BucketSettings
from opsd.clients.s3errors import NoSuchObject, Taken
from opsd.errors import OpsdError, PermanentError

SMALLEST_PART_BYTES = 8 << 20
MOST_PARTS = 10_000
PARTS_FOR_HINT = 9_000  # what a hint is spread over: it may be a little wrong
HINT_MARGIN = 1.2
IN_FLIGHT_BYTES = 32 << 20  # of all uploads together, besides the part that each one fills
SENDERS = 4  # threads
ABORT_PATIENCE_S = 15.0  # for parts under way, before they are abandoned

_UPLOAD_MARK = "opsd-upload"  # metadata by which an upload recognises its own object
_RUN_ID = re.compile(r".*/\d{8}T\d{6}Z-([0-9A-Za-z]+)(?:\..*)?")


class S3Repository:
    """Objects in a bucket, under a prefix."""

    def __init__(self, name: str, bucket: Bucket, *, prefix: str = "") -> None:
        """Nothing is connected yet.

        Args:
            name: the configured name.
            bucket: where the objects are.
            prefix: parts of a key; a slash is added at its end.

        Raises:
            InvalidKey: the prefix is not made of parts of a key.
        """
        self._name = name
        self._bucket = bucket
        stripped = prefix.strip("/")
        self._prefix = f"{check_key(stripped)}/" if stripped else ""
        self._buffers = _Buffers(IN_FLIGHT_BYTES)
        self._senders = ThreadPoolExecutor(SENDERS, thread_name_prefix=f"s3-{name}")

    @property
    def name(self) -> str:
        """The configured name."""
        return self._name

    @property
    def location(self) -> str:
        """Bucket, prefix, and the server unless it is AWS."""
        settings = self._bucket.settings
        place = f"s3://{settings.bucket}/{self._prefix}".rstrip("/")
        return f"{place} at {settings.endpoint}" if settings.endpoint else place

    @property
    def settings(self) -> BucketSettings:
        """How the bucket is reached: an engine that keeps data beside the objects needs it."""
        return self._bucket.settings

    @property
    def prefix(self) -> str:
        """What every key in the bucket begins with; empty, or with a slash at its end."""
        return self._prefix

    def upload(self, key: str, *, run_id: str, size_hint: int = 0) -> Upload:
        """Begin an object; see `Repository.upload`. Nothing is sent before the first part."""
        check_key(key)
        return _S3Upload(
            self._name,
            self._bucket,
            key=key,
            full_key=self._prefix + key,
            run_id=run_id,
            part_bytes=part_bytes(size_hint),
            buffers=self._buffers,
            senders=self._senders,
        )

    def create(self, key: str, content: bytes) -> None:
        """Write a small object in one request; see `Repository.create`."""
        try:
            self._bucket.put(self._prefix + check_key(key), content, metadata={})
        except Taken as exc:
            if b"".join(self.read(key)) != content:
                raise _taken(self._name, key) from exc

    def read(self, key: str) -> Iterator[bytes]:
        """The object's bytes; see `Repository.read`."""
        try:
            yield from self._bucket.get(self._prefix + check_key(key))
        except NoSuchObject as exc:
            raise NotFound(f"repository {self._name}: read {key}: no such object") from exc

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """All objects under `prefix`; see `Repository.list`. Other people's are left out."""
        found = [
            StoredObject(
                key=entry.key.removeprefix(self._prefix),
                size_bytes=entry.size_bytes,
                modified_at=entry.at,
            )
            for entry in self._bucket.list(self._prefix + check_prefix(prefix))
            if self._is_ours(entry.key)
        ]
        # Servers on a file system list by directory, which is not the order of keys.
        yield from sorted(found, key=lambda entry: entry.key)

    def delete(self, key: str) -> None:
        """Remove one object; see `Repository.delete`."""
        self._bucket.delete(self._prefix + check_key(key))

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        """Uploads in parts that are under way; the run is told from the key."""
        for entry in self._bucket.list_uploads(self._prefix + check_prefix(prefix)):
            key = entry.key.removeprefix(self._prefix)
            if self._is_ours(entry.key) and key.startswith(prefix):
                match = _RUN_ID.fullmatch(key)
                yield Unfinished(
                    key=key,
                    run_id=match[1] if match else "",
                    started_at=entry.at,
                    token=entry.upload_id,
                )

    def discard(self, leftover: Unfinished) -> None:
        """Abort an upload in parts; see `Repository.discard`."""
        self._bucket.abort(self._prefix + check_key(leftover.key), leftover.token)

    def probe(self) -> None:
        """Try every right, that to upload in parts too; see `Repository.probe`."""
        try_rights(self)
        key = f"{self._prefix}probe/{secrets.token_hex(8)}"
        upload_id = self._bucket.begin(key, metadata={})
        try:
            self._bucket.put_part(key, upload_id, number=1, content=io.BytesIO(b"probe"))
            list(self._bucket.list_uploads(key))
        finally:
            self._bucket.abort(key, upload_id)

    def _is_ours(self, full_key: str) -> bool:
        key = full_key.removeprefix(self._prefix)
        return full_key.startswith(self._prefix) and all(map(is_part, key.split("/")))


def part_bytes(size_hint: int) -> int:
    """The size of all parts of an object of at most `size_hint` bytes, 0 when unknown."""
    return max(SMALLEST_PART_BYTES, math.ceil(HINT_MARGIN * size_hint / PARTS_FOR_HINT))


def _taken(repository: str, key: str) -> AlreadyExists:
    return AlreadyExists(f"repository {repository}: write {key}: an object with this key is there")


class _Buffers:
    """Memory for parts, used again and again: new blocks of this size would fragment the heap."""

    def __init__(self, in_flight_bytes: int) -> None:
        self._in_flight_bytes = in_flight_bytes
        self._used = 0
        self._changed = threading.Condition()
        self._free: list[tuple[int, io.BytesIO]] = []

    def empty(self, size_bytes: int) -> io.BytesIO:
        """A buffer at its start, with room for `size_bytes`."""
        with self._changed:
            for entry in self._free:
                if entry[0] == size_bytes:
                    self._free.remove(entry)
                    return entry[1]
        buffer = io.BytesIO()
        buffer.seek(size_bytes - 1)
        buffer.write(b"\0")
        buffer.seek(0)
        return buffer

    def await_room(self, size_bytes: int) -> None:
        """Wait until one more part may be under way; one always may, however large."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._used or self._used + size_bytes <= self._in_flight_bytes
            )
            self._used += size_bytes

    def give_back(self, buffer: io.BytesIO, size_bytes: int, *, is_full: bool) -> None:
        """A part is no longer under way; the memory of a full one is kept for the next."""
        buffer.seek(0)
        with self._changed:
            self._used -= size_bytes
            kept = sum(size for size, _ in self._free)
            if is_full and kept + size_bytes <= self._in_flight_bytes:
                self._free.append((size_bytes, buffer))
            self._changed.notify_all()


class _S3Upload:
    """One object on its way: a single request when it is small, parts when it is not."""

    def __init__(
        self,
        repository: str,
        bucket: Bucket,
        *,
        key: str,
        full_key: str,
        run_id: str,
        part_bytes: int,
        buffers: _Buffers,
        senders: ThreadPoolExecutor,
    ) -> None:
        self._repository = repository
        self._bucket = bucket
        self._key = key
        self._full_key = full_key
        self._metadata = {"opsd-run": run_id, _UPLOAD_MARK: secrets.token_hex(8)}
        self._part_bytes = part_bytes
        self._buffers = buffers
        self._senders = senders
        self._hash = hashlib.sha256()
        self._size_bytes = 0
        self._filling: io.BytesIO | None = None
        self._upload_id = ""
        self._parts: list[Future[str]] = []
        self._failed: Future[str] | None = None

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Append `chunk`; see `Upload.write`. Waits while too much is under way."""
        self._hash.update(chunk)
        rest = memoryview(chunk)
        self._size_bytes += len(rest)
        while rest:
            if self._filling is None:
                self._filling = self._buffers.empty(self._part_bytes)
            room = self._part_bytes - self._filling.tell()
            self._filling.write(rest[:room])
            rest = rest[room:]
            if self._filling.tell() == self._part_bytes:
                self._send_part(self._filling)

    def commit(self) -> Stored:
        """Complete the parts, or send the small object; see `Upload.commit`."""
        if self._upload_id and self._filling is not None:
            self._filling.truncate()
            self._send_part(self._filling)
        etags = [part.result() for part in self._parts]
        try:
            if self._upload_id:
                self._bucket.complete(self._full_key, self._upload_id, etags)
            else:
                self._bucket.put(self._full_key, self._small(), metadata=self._metadata)
        except OpsdError as exc:
            self._accept_if_ours(exc)
        self._upload_id = ""
        return Stored(key=self._key, size_bytes=self._size_bytes, sha256=self._hash.hexdigest())

    def abort(self) -> None:
        """Stop sending and have the server forget the parts; see `Upload.abort`."""
        for part in self._parts:
            part.cancel()
        if self._upload_id:
            wait(self._parts, timeout=ABORT_PATIENCE_S)
            with contextlib.suppress(OpsdError):  # the next run's sweep finds it
                self._bucket.abort(self._full_key, self._upload_id)
            self._upload_id = ""
        self._filling = None

    def _small(self) -> bytes:
        """The whole object, when it did not fill a part."""
        return self._filling.getvalue()[: self._size_bytes] if self._filling else b""

    def _send_part(self, part: io.BytesIO) -> None:
        """Hand a part to a sender, which gives its memory back."""
        if self._failed is not None:
            self._failed.result()
        if len(self._parts) == MOST_PARTS:
            raise PermanentError(
                f"repository {self._repository}: write {self._key}: larger than"
                f" {MOST_PARTS} parts of {self._part_bytes >> 20} MiB, which is all S3 allows"
            )
        if not self._upload_id:
            self._upload_id = self._bucket.begin(self._full_key, metadata=self._metadata)
        self._filling = None
        size_bytes = part.tell()
        part.seek(0)
        self._buffers.await_room(size_bytes)
        sending = self._senders.submit(self._send, self._upload_id, len(self._parts) + 1, part)
        sending.add_done_callback(partial(self._sent, part=part, size_bytes=size_bytes))
        self._parts.append(sending)

    def _send(self, upload_id: str, number: int, part: io.BytesIO) -> str:
        return self._bucket.put_part(self._full_key, upload_id, number=number, content=part)

    def _sent(self, sending: Future[str], *, part: io.BytesIO, size_bytes: int) -> None:
        self._buffers.give_back(part, size_bytes, is_full=size_bytes == self._part_bytes)
        if not sending.cancelled() and sending.exception() is not None:
            self._failed = sending

    def _accept_if_ours(self, exc: OpsdError) -> None:
        """After an error the object may be there all the same: the reply was lost.

        Raises:
            AlreadyExists: another object is there.
            OpsdError: `exc`, when there is none.
        """
        try:
            head = self._bucket.head(self._full_key)
        except OpsdError:
            raise exc from None
        if head is None:
            raise exc
        if head.metadata.get(_UPLOAD_MARK) != self._metadata[_UPLOAD_MARK]:
            raise _taken(self._repository, self._key) from exc
        if head.size_bytes != self._size_bytes:
            raise PermanentError(
                f"repository {self._repository}: write {self._key}: the server has"
                f" {head.size_bytes} bytes of {self._size_bytes}"
            ) from exc
