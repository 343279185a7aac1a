"""A real S3 server: SeaweedFS, which rejects wrong keys and wrong checksums as AWS does.

It also knows versions, Object Lock, multipart uploads and conditional writes.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from tests.rig import scratch
from tests.rig.parts import program
from tests.rig.server import HOST, Server, free_port, listens

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

ACCESS_KEY = "opsd-access"
SECRET_KEY = "canary-s3-secret/+="  # with the characters that signatures stumble over
REGION = "us-east-1"
ACTIONS = ["Admin", "Read", "Write", "List", "Tagging"]
SOCKETS_DIR = "/tmp"  # noqa: S108 - built into SeaweedFS
VOLUME_MB = 64  # SeaweedFS keeps each bucket in volumes of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """A running S3 server."""

    endpoint: str  #: ``http://127.0.0.1:PORT``
    port: int
    access_key: str
    secret_key: str
    region: str
    server: Server

    def client(self, *, endpoint: str = "") -> S3Client:
        """A plain boto3 client; `endpoint` to go through a proxy."""
        return _client(endpoint or self.endpoint, self.access_key, self.secret_key)

    def make_bucket(self, *, lock: bool = False) -> str:
        """Create an empty bucket with a new name, with Object Lock if asked."""
        name = f"t-{secrets.token_hex(6)}"
        self.client().create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
        return name


@contextlib.contextmanager
def running() -> Iterator[S3Server]:
    """A server of its own, empty."""
    weed = program("weed")
    with scratch.directory("s3") as home:
        ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
        server = Server(
            [weed, "-logtostderr", "server", *_flags(home, ports)],
            log=home / "log",
            env={"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1", "HOME": str(home), "TMPDIR": str(home)},
        )
        try:
            s3 = S3Server(
                endpoint=f"http://{HOST}:{ports['s3']}",
                port=ports["s3"],
                access_key=ACCESS_KEY,
                secret_key=SECRET_KEY,
                region=REGION,
                server=server,
            )
            server.await_ready(lambda: listens(s3.port))
            server.await_ready(lambda: _stores(s3))
            yield s3
        finally:
            server.kill()  # it takes ten seconds to end by itself
            _remove_dead_sockets()


@functools.cache
def _client(endpoint: str, access_key: str, secret_key: str) -> S3Client:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=REGION,
        config=Config(s3={"addressing_style": "path"}),
    )


def _flags(home: Path, ports: dict[str, int]) -> list[str]:
    identities = home / "s3.json"
    keys = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    identity = {"name": "opsd", "credentials": keys, "actions": ACTIONS}
    identities.write_text(json.dumps({"identities": [identity]}))
    grpc = [f"-{name}.port.grpc={free_port()}" for name in ports]
    return [
        f"-dir={home}",
        f"-ip={HOST}",
        f"-ip.bind={HOST}",
        *(f"-{name}.port={port}" for name, port in ports.items()),
        *grpc,
        "-filer",
        "-s3",
        f"-s3.config={identities}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.localSocket={home}/s3.sock",
        f"-filer.localSocket={home}/filer.sock",
        f"-master.volumeSizeLimitMB={VOLUME_MB}",
        "-master.volumePreallocate=false",
        "-master.telemetry=false",
        "-volume.max=1000",
    ]


def _stores(s3: S3Server) -> bool:
    with contextlib.suppress(Exception):
        client = s3.client()
        bucket = s3.make_bucket()
        client.put_object(Bucket=bucket, Key="ready", Body=b"ready")
        client.delete_object(Bucket=bucket, Key="ready")
        client.delete_bucket(Bucket=bucket)
        return True
    return False


def _remove_dead_sockets() -> None:
    """SeaweedFS leaves its sockets behind; remove those that nobody listens on any more."""
    for path in Path(SOCKETS_DIR).glob("seaweedfs-*.sock"):
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == errno.ECONNREFUSED:
                path.unlink(missing_ok=True)
