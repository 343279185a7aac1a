"""One S3 bucket, on AWS or on any server that speaks its protocol.

Servers differ in what they understand, and a library's exception says neither which object
nor what to do. So every request here is one that all servers take, has a finite time, and
fails with an error that names the object, the server's own words and the remedy.

Limits: batch deletion and the newer checksums are not used unless asked for, because many
servers refuse them. A server that ignores ``If-None-Match`` without a word leaves a short
moment in which two writers of one key both succeed.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

import structlog

from opsd.clients.s3errors import NoSuchObject, NotImplementedByServer, Taken, server_error
from opsd.errors import OpsdError, PermanentError, TransientError
from opsd.secrets import Secret, redact

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

log = structlog.get_logger()

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
ATTEMPTS = 4  # the first included
CONNECTIONS = 16  # parts under way and catalog readers together
READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketSettings:
    """How to reach a bucket."""

    bucket: str
    endpoint: str  #: URL; empty for AWS
    region: str
    access_key: Secret
    secret_key: Secret
    addressing: Literal["auto", "path", "virtual"] = "auto"
    checksums: Literal["required", "always"] = "required"
    storage_class: str = ""  #: empty for the bucket's own
    lock: timedelta = timedelta()  #: Object Lock for what is written; zero for none


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One object, or one upload under way, in a listing."""

    key: str
    at: datetime  #: last changed, or begun; the server's clock
    size_bytes: int = 0
    upload_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a server says about an object."""

    size_bytes: int
    etag: str
    metadata: Mapping[str, str]
    locked_until: datetime | None


class Bucket:
    """One bucket. Safe for several threads; connects on first use.

    Every method raises TransientError or PermanentError; the text names the repository.
    """

    def __init__(self, repository: str, settings: BucketSettings) -> None:
        self._repository = repository
        self._settings = settings
        self._lock = threading.Lock()
        self._connected: S3Client | None = None
        self._knows_conditions = True

    @property
    def settings(self) -> BucketSettings:
        """What it was made with."""
        return self._settings

    def put(self, key: str, content: bytes, *, metadata: Mapping[str, str]) -> None:
        """Write an object in one request.

        Raises:
            Taken: the key has an object; it may be this one, when a reply was lost.
        """
        self._refuse_taken(key)
        self._exclusively(
            f"write {key}",
            "put_object",
            Key=key,
            Body=content,
            Metadata=dict(metadata),
            **self._integrity(content),
            **self._placement(),
        )

    def begin(self, key: str, *, metadata: Mapping[str, str]) -> str:
        """Begin an upload in parts; returns its id."""
        answer = self._call(
            f"begin {key}",
            "create_multipart_upload",
            Key=key,
            Metadata=dict(metadata),
            **self._placement(),
        )
        return str(answer["UploadId"])

    def put_part(self, key: str, upload_id: str, *, number: int, content: BytesIO) -> str:
        """Write a part, numbered from 1; returns its ETag. `content` is not copied."""
        answer = self._call(
            f"write part {number} of {key}",
            "upload_part",
            Key=key,
            UploadId=upload_id,
            PartNumber=number,
            Body=content,
            **self._integrity(content.getbuffer()),
        )
        return str(answer["ETag"])

    def complete(self, key: str, upload_id: str, etags: Sequence[str]) -> None:
        """Make an object of the parts.

        Raises:
            Taken: the key has an object; it may be this one, when a reply was lost.
        """
        self._refuse_taken(key)
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        self._exclusively(
            f"complete {key}",
            "complete_multipart_upload",
            Key=key,
            UploadId=upload_id,
            MultipartUpload={"Parts": parts},
        )

    def abort(self, key: str, upload_id: str) -> None:
        """Take the parts of an upload away; one that is gone is fine."""
        try:
            self._call(f"abort {key}", "abort_multipart_upload", Key=key, UploadId=upload_id)
        except NoSuchObject:
            return

    def head(self, key: str) -> Head | None:
        """What is known about an object; None when there is none."""
        try:
            answer = self._call(f"look at {key}", "head_object", Key=key)
        except NoSuchObject:
            return None
        except PermanentError:
            # The answer to HEAD has no words. This one has.
            self._call(f"look at {key}", "list_objects_v2", Prefix=key, MaxKeys=1)
            raise
        return Head(
            size_bytes=int(answer["ContentLength"]),
            etag=str(answer.get("ETag", "")),
            metadata=answer.get("Metadata", {}),
            locked_until=answer.get("ObjectLockRetainUntilDate"),
        )

    def get(self, key: str) -> Iterator[bytes]:
        """An object's bytes in pieces of at most `READ_BYTES`; a cut stream is resumed.

        Raises:
            NoSuchObject: there is none.
            TransientError: the stream was cut too often.
        """
        answer = self._call(f"read {key}", "get_object", Key=key)
        etag, size_bytes, received = answer["ETag"], int(answer["ContentLength"]), 0
        for attempt in range(1, ATTEMPTS + 1):
            try:
                for piece in self._pieces(key, answer["Body"]):
                    received += len(piece)
                    yield piece
            except TransientError:
                if attempt == ATTEMPTS:
                    raise
            if received >= size_bytes:
                return
            answer = self._call(
                f"read {key}", "get_object", Key=key, Range=f"bytes={received}-", IfMatch=etag
            )
        raise TransientError(
            f"repository {self._repository}: read {key}: ended after {received} of"
            f" {size_bytes} bytes"
        )

    def list(self, prefix: str) -> Iterator[Listed]:
        """All objects under `prefix`, in the server's order."""
        request = {"Prefix": prefix}
        while True:
            page = self._call(f"list {prefix}", "list_objects_v2", **request)
            for entry in page.get("Contents", ()):
                yield Listed(
                    key=entry["Key"], at=entry["LastModified"], size_bytes=int(entry["Size"])
                )
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def list_uploads(self, prefix: str) -> Iterator[Listed]:
        """All uploads under way below `prefix`; nothing where the server cannot list them."""
        request = {"Prefix": prefix}
        while True:
            try:
                page = self._call(f"list uploads {prefix}", "list_multipart_uploads", **request)
            except NotImplementedByServer:
                return
            for entry in page.get("Uploads", ()):
                yield Listed(key=entry["Key"], at=entry["Initiated"], upload_id=entry["UploadId"])
            if not page.get("IsTruncated"):
                return
            request["KeyMarker"] = page["NextKeyMarker"]
            request["UploadIdMarker"] = page["NextUploadIdMarker"]

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is fine.

        Raises:
            PermanentError: the server keeps it; under Object Lock the text says until when.
        """
        try:
            self._call(f"delete {key}", "delete_object", Key=key)
        except NoSuchObject:
            return
        except PermanentError as exc:
            until = self._locked_until(key)
            if until is None:
                raise
            raise PermanentError(
                f"repository {self._repository}: delete {key}: Object Lock keeps it until"
                f" {until:%Y-%m-%d %H:%M} UTC; it goes after that"
            ) from exc

    def _locked_until(self, key: str) -> datetime | None:
        try:
            head = self.head(key)
        except OpsdError:
            return None
        return head.locked_until if head else None

    def _pieces(self, key: str, body: Any) -> Iterator[bytes]:
        try:
            while piece := body.read(READ_BYTES):
                yield piece
        except Exception as exc:
            raise self._translated(f"read {key}", exc) from exc
        finally:
            body.close()

    def _integrity(self, content: bytes | memoryview) -> dict[str, str]:
        """Have the server compare what it got; Object Lock demands it. MD5 is known to all."""
        if self._settings.checksums == "always":
            return {}  # the library adds a CRC
        digest = hashlib.md5(content, usedforsecurity=False).digest()
        return {"ContentMD5": base64.b64encode(digest).decode()}

    def _placement(self) -> dict[str, Any]:
        wanted: dict[str, Any] = {}
        if self._settings.storage_class:
            wanted["StorageClass"] = self._settings.storage_class
        if self._settings.lock:
            wanted["ObjectLockMode"] = "GOVERNANCE"
            wanted["ObjectLockRetainUntilDate"] = datetime.now(UTC) + self._settings.lock
        return wanted

    def _refuse_taken(self, key: str) -> None:
        """Some servers ignore ``If-None-Match``, so that looking before is all there is."""
        if self.head(key) is not None:
            raise Taken(f"repository {self._repository}: write {key}: there is an object")

    def _exclusively(self, action: str, operation: str, **request: Any) -> None:
        if self._knows_conditions:
            try:
                self._call(action, operation, IfNoneMatch="*", **request)
            except NotImplementedByServer:
                self._knows_conditions = False
                log.warning("repository.conditions_unknown", repository=self._repository)
            else:
                return
        self._call(action, operation, **request)

    def _call(self, action: str, operation: str, **request: Any) -> Any:
        try:
            return getattr(self._client(), operation)(Bucket=self._settings.bucket, **request)
        except OpsdError:
            raise
        except Exception as exc:
            raise self._translated(action, exc) from exc

    def _client(self) -> S3Client:
        with self._lock:
            if self._connected is None:
                self._connected = _connect(self._settings)
            return self._connected

    def _translated(self, action: str, exc: Exception) -> OpsdError:
        return _error(f"repository {self._repository}: {action}", exc, self._settings)


def _connect(settings: BucketSettings) -> S3Client:
    import boto3  # noqa: PLC0415 - 49 MiB that only S3 needs
    from botocore.config import Config  # noqa: PLC0415 - likewise

    addressing = settings.addressing
    if addressing == "auto" and settings.endpoint:
        addressing = "path"
    checksums: Any = "when_supported" if settings.checksums == "always" else "when_required"
    return boto3.client(
        "s3",
        endpoint_url=settings.endpoint or None,
        region_name=settings.region,
        aws_access_key_id=settings.access_key.reveal(),
        aws_secret_access_key=settings.secret_key.reveal(),
        config=Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=CONNECTIONS,
            tcp_keepalive=True,
            ignore_configured_endpoint_urls=True,  # type: ignore[call-arg] # not in the stubs
            request_checksum_calculation=checksums,
            response_checksum_validation=checksums,
            s3={"addressing_style": addressing},
        ),
    )


def _error(where: str, exc: Exception, settings: BucketSettings) -> OpsdError:
    """What a person can do about an exception of the library."""
    from botocore import exceptions as boto  # noqa: PLC0415 - loaded already when there is one
    from botocore.parsers import ResponseParserError  # noqa: PLC0415 - likewise

    if isinstance(exc, boto.ClientError):
        return server_error(where, exc.response)
    server = settings.endpoint or "AWS"
    permanent = (
        (boto.SSLError, f"{server} shows a certificate that is not trusted: set AWS_CA_BUNDLE"),
        (boto.ParamValidationError, "correct bucket and prefix"),
        ((boto.InvalidRegionError, boto.NoRegionError), "correct region"),
        (ResponseParserError, f"{server} does not answer as an S3 server: check endpoint"),
        (ValueError, "correct endpoint"),
    )
    words = redact(" ".join(str(exc).split()))
    for kind, remedy in permanent:
        if isinstance(exc, kind):
            return PermanentError(f"{where}: {words}; {remedy}")
    return TransientError(f"{where}: {words}; is {server} up and reachable from here?")
