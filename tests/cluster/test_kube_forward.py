"""Ports of pods, through a real API server and a kubelet's side of the protocol."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets as random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opsd.clients.kube.access import find_cluster
from opsd.clients.kube.client import Kube
from opsd.clients.kube.errors import Forbidden, NotFound
from opsd.clients.kube.forward import forwarded
from opsd.clients.kube.objects import Metadata, Pod
from opsd.clients.kube.transport import Transport
from opsd.clients.pgserver import Server
from opsd.clients.postgres import PsycopgPostgres
from opsd.clock import Deadline, SystemClock
from tests.rig import kubeletport
from tests.rig.controlplane import ControlPlane
from tests.rig.kubeapi import eventually
from tests.rig.kubeletport import KubeletPort
from tests.rig.postgres import PgServer
from tests.rig.server import HOST, free_port
from tests.rig.workloads import pod, pod_spec, service_account

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]

SIZE = 32 << 20  # bytes, far more than all buffers on the way
Serve = Callable[[socket.socket], None]


def kube_with(kubeconfig: Path, *, within_s: float = 120) -> Kube:
    transport = Transport(lambda: find_cluster(kubeconfig=kubeconfig))
    return Kube(transport, deadline=Deadline.after(within_s, SystemClock()))


@pytest.fixture
def kube(control_plane: ControlPlane) -> Kube:
    return kube_with(control_plane.kubeconfig())


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[KubeletPort]:
    with kubeletport.running(tmp_path) as running:
        yield running


@pytest.fixture
def target(
    control_plane: ControlPlane, kubelet: KubeletPort, kube: Kube, namespace: str
) -> Iterator[Pod]:
    """A pod whose ports are those of this machine."""
    name = f"forwarder-{random.token_hex(3)}"
    kubeletport.node(control_plane.api, name, kubelet.port)
    spec = pod_spec(nodeName=name, tolerations=[{"operator": "Exists"}])
    control_plane.api.create(pod(namespace, "pg", spec))
    yield kube.get(Pod, "pg", namespace=namespace)
    control_plane.api.delete(f"/api/v1/nodes/{name}")


@contextlib.contextmanager
def serving(serve: Serve) -> Iterator[int]:
    """A port on which each connection is served by the function."""
    with socket.create_server((HOST, 0)) as server:

        def one(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                serve(connection)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=one, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextlib.contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        yield client


def digest_of(client: socket.socket, size: int | None = None) -> str:
    """Of what comes: so many bytes, or all until the end."""
    digest, left = hashlib.sha256(), size
    while left != 0 and (piece := client.recv(1 << 16)):
        digest.update(piece)
        left = None if left is None else left - len(piece)
    return digest.hexdigest()


def echo(connection: socket.socket) -> None:
    while piece := connection.recv(1 << 16):
        connection.sendall(piece)


def test_both_directions_carry_every_byte_at_once(kube: Kube, target: Pod, tmp_path: Path) -> None:
    content = os.urandom(SIZE)
    with (
        serving(echo) as port,
        forwarded(kube, target, port, to=tmp_path / "s"),
        connected(tmp_path / "s") as client,
    ):
        sender = threading.Thread(target=client.sendall, args=(content,), daemon=True)
        sender.start()

        received = digest_of(client, SIZE)

        sender.join()
    assert received == hashlib.sha256(content).hexdigest()
    assert not (tmp_path / "s").exists()


def test_what_a_pod_sent_before_it_closed_arrives_whole(
    kube: Kube, target: Pod, tmp_path: Path
) -> None:
    content = os.urandom(SIZE)
    with (
        serving(lambda connection: connection.sendall(content)) as port,
        forwarded(kube, target, port, to=tmp_path / "s") as forward,
        connected(tmp_path / "s") as client,
    ):
        received = digest_of(client)

    assert received == hashlib.sha256(content).hexdigest()
    assert forward.error == ""


def test_what_a_client_sent_before_it_closed_arrives_whole(
    kube: Kube, target: Pod, tmp_path: Path
) -> None:
    content, arrived = os.urandom(SIZE), threading.Event()
    received: list[str] = []

    def take(connection: socket.socket) -> None:
        received.append(digest_of(connection))
        arrived.set()

    with serving(take) as port, forwarded(kube, target, port, to=tmp_path / "s"):
        with connected(tmp_path / "s") as client:
            client.sendall(content)

        assert arrived.wait(60)

    assert received == [hashlib.sha256(content).hexdigest()]


def test_each_connection_is_one_of_its_own(
    kube: Kube, target: Pod, tmp_path: Path, kubelet: KubeletPort
) -> None:
    with serving(echo) as port, forwarded(kube, target, port, to=tmp_path / "s"):
        with connected(tmp_path / "s") as one, connected(tmp_path / "s") as two:
            one.sendall(b"one")
            two.sendall(b"two")
            answers = [one.recv(10), two.recv(10)]
        with connected(tmp_path / "s") as three:
            three.sendall(b"three")
            answers.append(three.recv(10))

    assert answers == [b"one", b"two", b"three"]
    assert len(kubelet.requests) == 3


def test_a_database_is_reached_as_if_it_were_here(
    kube: Kube, target: Pod, tmp_path: Path, own_pg: PgServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = own_pg.data_dir / "pg_hba.conf"
    rules.write_text(f"host all all {HOST}/32 scram-sha-256\n{rules.read_text()}")
    own_pg.execute("SELECT pg_reload_conf()")
    monkeypatch.setenv("PGPASSWORD", own_pg.password)
    server = Server(name="pod", host=str(tmp_path), port=5432, user=own_pg.superuser)

    with (
        forwarded(kube, target, own_pg.port, to=tmp_path / ".s.PGSQL.5432"),
        PsycopgPostgres().connect(server, within_s=60) as session,
    ):
        wide = session.query("SELECT repeat('y', 5000000)")
        where = session.query("SELECT host(inet_client_addr())")

    assert wide == [("y" * 5000000,)]
    assert where == [(HOST,)]


def test_a_port_on_which_nothing_listens_says_so(kube: Kube, target: Pod, tmp_path: Path) -> None:
    port = free_port()
    with forwarded(kube, target, port, to=tmp_path / "s") as forward:
        with connected(tmp_path / "s") as client:
            received = client.recv(10)
        eventually(lambda: forward.error)

    assert received == b""
    assert f"error forwarding port {port}" in forward.error
    assert "Connect call failed" in forward.error


def test_a_pod_that_is_not_there_or_not_allowed_is_told_at_once(
    kube: Kube, target: Pod, tmp_path: Path, control_plane: ControlPlane, namespace: str
) -> None:
    control_plane.api.create(service_account(namespace, "nobody"))
    stranger = kube_with(control_plane.kubeconfig_of(namespace, "nobody"))
    gone = Pod(metadata=Metadata(name="gone", namespace=namespace))

    with (
        pytest.raises(NotFound, match=rf"^forward port 5 of pod {namespace}/gone: 404"),
        forwarded(kube, gone, 5, to=tmp_path / "s"),
    ):
        pass
    with (
        pytest.raises(Forbidden, match=rf"^forward port 5 of {target}: 403 Forbidden: service"),
        forwarded(stranger, target, 5, to=tmp_path / "s"),
    ):
        pass

    assert not (tmp_path / "s").exists()


def test_only_its_owner_may_use_the_socket(kube: Kube, target: Pod, tmp_path: Path) -> None:
    with serving(echo) as port, forwarded(kube, target, port, to=tmp_path / "s"):
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600


def test_connections_end_with_the_deadline(
    control_plane: ControlPlane, target: Pod, tmp_path: Path
) -> None:
    hurried = kube_with(control_plane.kubeconfig(), within_s=2)

    with (
        serving(echo) as port,
        forwarded(hurried, target, port, to=tmp_path / "s") as forward,
        connected(tmp_path / "s") as client,
    ):
        received = client.recv(10)

        assert received == b""
        eventually(lambda: forward.error)


def test_leaving_ends_open_connections(kube: Kube, target: Pod, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(serving(echo))
        with forwarded(kube, target, port, to=tmp_path / "s"):
            client = stack.enter_context(connected(tmp_path / "s"))
            client.sendall(b"x")
            answered = client.recv(1)

        assert (answered, client.recv(1)) == (b"x", b"")
