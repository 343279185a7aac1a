"""Real etcd members on loopback: one or several, plain or with certificates, of any release."""

from __future__ import annotations

import base64
import contextlib
import json
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from opsd.clients.etcd.exchange import Endpoint, Identity
from opsd.clients.etcd.member import Etcd
from opsd.clock import Deadline, SystemClock
from tests.rig import scratch
from tests.rig.parts import CACHE, missing
from tests.rig.server import HOST, Server, free_port, listens

RELEASES = ("3.5", "3.6", "3.7")
NEWEST = RELEASES[-1]


def programs(release: str = NEWEST) -> Path:
    """The directory with etcd and etcdutl of a release."""
    found = CACHE / "etcd" / release
    if not (found / "etcdutl").exists():
        missing(f"etcd {release}", f"make control-plane MINOR={release}", required=False)
    return found


@dataclass
class Tls:
    """An authority, and what it signed."""

    home: Path
    authority: trustme.CA = field(default_factory=trustme.CA)

    def __post_init__(self) -> None:
        """Write the server's files."""
        self.authority.cert_pem.write_to_path(self.home / "ca.crt")
        leaf = self.authority.issue_cert(HOST, "localhost")
        leaf.private_key_pem.write_to_path(self.home / "server.key")
        (self.home / "server.crt").write_bytes(b"".join(p.bytes() for p in leaf.cert_chain_pems))

    def identity(self, *, signed_by: trustme.CA | None = None) -> Identity:
        """What a client shows; `signed_by` another authority, it is a stranger."""
        leaf = (signed_by or self.authority).issue_cert("opsd")
        return Identity(
            authority=self.authority.cert_pem.bytes().decode(),
            certificate=b"".join(p.bytes() for p in leaf.cert_chain_pems).decode(),
            key=leaf.private_key_pem.bytes().decode(),
        )

    def flags(self) -> list[str]:
        """What etcd is started with."""
        return [
            f"--cert-file={self.home}/server.crt",
            f"--key-file={self.home}/server.key",
            f"--trusted-ca-file={self.home}/ca.crt",
            "--client-cert-auth=true",
        ]


@dataclass
class RealEtcd:
    """One member."""

    name: str
    home: Path
    release: str
    tls: Tls | None = None
    port: int = field(default_factory=free_port)
    peer_port: int = field(default_factory=free_port)
    _server: Server | None = None

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"{'https' if self.tls else 'http'}://{HOST}:{self.port}"

    @property
    def peer_url(self) -> str:
        """Where the others find it."""
        return f"http://{HOST}:{self.peer_port}"

    @property
    def endpoint(self) -> Endpoint:
        """As opsd finds it."""
        identity = self.tls.identity() if self.tls else None
        return Endpoint(name=f"etcd on {self.name}", port=self.port, identity=identity)

    def client(self, *, within_s: float = 30.0) -> Etcd:
        """opsd's client."""
        return Etcd(self.endpoint, deadline=Deadline.after(within_s, SystemClock()))

    def start(self, members: Sequence[RealEtcd], *more: str) -> None:
        """Start its process; `await_ready` waits for it."""
        cluster = ",".join(f"{one.name}={one.peer_url}" for one in members)
        flags = [
            f"--name={self.name}",
            f"--data-dir={self.home / self.name}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster={cluster}",
            "--unsafe-no-fsync=true",
            "--log-level=error",
            *(self.tls.flags() if self.tls else ()),
            *more,
        ]
        log = self.home / f"{self.name}.log"
        self._server = Server([programs(self.release) / "etcd", *flags], log=log)

    def await_ready(self) -> None:
        """Wait until it has a leader."""
        self.server.await_ready(lambda: listens(self.port) and self._has_leader())

    def _has_leader(self) -> bool:
        with contextlib.suppress(Exception):
            return self.client(within_s=5).status().leader != "0"
        return False

    @property
    def server(self) -> Server:
        """Its process."""
        assert self._server, f"{self.name} was never started"
        return self._server

    def freeze(self) -> None:
        """Stop it, and wait until it is."""
        self.server.freeze()
        stat = Path(f"/proc/{self.server.pid}/stat")
        self.server.await_ready(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")

    def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask a member without TLS anything."""
        request = urllib.request.Request(f"{self.url}{path}", data=json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found

    def put(self, key: str, value: str | bytes) -> int:
        """Write a key; the revision."""
        raw = value.encode() if isinstance(value, str) else value
        body = {"key": encoded(key.encode()), "value": encoded(raw)}
        return int(self.call("/v3/kv/put", body)["header"]["revision"])

    def fill(self, number: int, *, size_bytes: int = 100) -> None:
        """Write so many keys below /registry."""
        for at in range(number):
            self.put(f"/registry/things/{at:05}", f"{at} ".encode() * (size_bytes // 4))


def encoded(raw: bytes) -> str:
    """As etcd's JSON has bytes."""
    return base64.b64encode(raw).decode()


@contextlib.contextmanager
def running(
    release: str = NEWEST, *, members: int = 1, tls: bool = False, more: Sequence[str] = ()
) -> Iterator[list[RealEtcd]]:
    """So many members of one cluster, ready."""
    programs(release)
    with scratch.directory("etcd", in_memory=True) as home:
        authority = Tls(home) if tls else None
        made = [
            RealEtcd(name=f"cp{number}", home=home, release=release, tls=authority)
            for number in range(1, members + 1)
        ]
        try:
            for one in made:
                one.start(made, *more)
            for one in made:
                one.await_ready()
            yield made
        finally:
            for one in made:
                with contextlib.suppress(AssertionError):
                    one.server.kill()
