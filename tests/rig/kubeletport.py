"""The side of a kubelet that forwards ports of pods, behind a real API server.

The "pod" is this machine: a port of it is a port on loopback. It speaks the WebSocket protocol
``v4.channel.k8s.io``, as kubelets do.

Limits: one port for each connection, and nothing but forwarding.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import trustme

from opsd.clients.kube.frames import accept_of
from tests.rig.kubeapi import KubeApi, Object
from tests.rig.server import HOST

PIECE_BYTES = 32 << 10
DATA, ERROR = b"\x00", b"\x01"
CLOSE = bytes([0x88, 0])


def message(payload: bytes) -> bytes:
    """A WebSocket message of a server."""
    size = len(payload)
    if size < 126:
        return bytes([0x82, size]) + payload
    if size < 1 << 16:
        return bytes([0x82, 126]) + size.to_bytes(2, "big") + payload
    return bytes([0x82, 127]) + size.to_bytes(8, "big") + payload


class KubeletPort:
    """A running one; `requests` are the heads of what it was asked."""

    def __init__(self, certificates: Path) -> None:
        """Listen on a free port of loopback."""
        self.requests: list[str] = []
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        leaf = trustme.CA().issue_cert(HOST)
        pem = certificates / "kubelet.pem"
        pem.write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
        self._tls.load_cert_chain(pem)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        listening = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, HOST, 0, ssl=self._tls), self._loop
        )
        self._server = listening.result()
        self.port: int = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """End it and all its connections."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(head)
            port = int(parse_qs(urlsplit(head.split()[1]).query)["port"][0])
            writer.write(_switched(head).encode())
            for channel in (DATA, ERROR):
                writer.write(message(channel + port.to_bytes(2, "little")))
            await self._connect(port, reader, writer)
        writer.close()

    async def _connect(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            from_pod, to_pod = await asyncio.open_connection(HOST, port)
        except OSError as exc:
            writer.write(message(ERROR + f"error forwarding port {port}: {exc}".encode()))
            await writer.drain()
            return
        both = [
            asyncio.ensure_future(_up(reader, to_pod)),
            asyncio.ensure_future(_down(from_pod, writer)),
        ]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for one in both:
            one.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        to_pod.close()


def _switched(head: str) -> str:
    key = next(
        line.partition(":")[2].strip()
        for line in head.splitlines()
        if line.lower().startswith("sec-websocket-key:")
    )
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_of(key)}\r\n"
        "Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
    )


async def _up(reader: asyncio.StreamReader, to_pod: asyncio.StreamWriter) -> None:
    while True:
        first, second = await reader.readexactly(2)
        size = second & 0x7F
        if width := {126: 2, 127: 8}.get(size, 0):
            size = int.from_bytes(await reader.readexactly(width), "big")
        mask = await reader.readexactly(4)
        masked = await reader.readexactly(size)
        pattern = (mask * (size // 4 + 1))[:size]
        mixed = int.from_bytes(masked, "big") ^ int.from_bytes(pattern, "big")
        payload = mixed.to_bytes(size, "big")
        if first & 0x0F == 8:
            return
        assert payload[:1] == DATA
        to_pod.write(payload[1:])
        await to_pod.drain()


async def _down(from_pod: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await from_pod.read(PIECE_BYTES):
        writer.write(message(DATA + piece))
        await writer.drain()
    writer.write(CLOSE)
    await writer.drain()


def node(api: KubeApi, name: str, port: int) -> Object:
    """A node whose kubelet listens there."""
    api.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    status = {
        "addresses": [{"type": "InternalIP", "address": HOST}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    return api.patch(f"/api/v1/nodes/{name}/status", {"status": status})


@contextlib.contextmanager
def running(certificates: Path) -> Iterator[KubeletPort]:
    """One that ends with the block."""
    kubelet = KubeletPort(certificates)
    try:
        yield kubelet
    finally:
        kubelet.close()
