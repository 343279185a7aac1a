"""The client of etcd, against the real one of three releases."""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Iterator

import pytest
import trustme

from opsd.backup.etcd.snapshot import SnapshotCheck
from opsd.backup.stream import Incomplete
from opsd.clients.etcd.exchange import CertificateRefused, Endpoint, Identity, NotEtcd
from opsd.clients.etcd.member import Etcd
from opsd.clock import Deadline, SystemClock
from opsd.errors import ConfigError, DeadlineExceeded, PermanentError, TransientError
from tests.rig import etcds
from tests.rig.etcds import RELEASES, RealEtcd
from tests.rig.server import free_port, listens

pytestmark = pytest.mark.real


@pytest.fixture(scope="module", params=RELEASES)
def member(request: pytest.FixtureRequest) -> Iterator[RealEtcd]:
    with etcds.running(request.param) as (one,):
        one.fill(20)
        yield one


@pytest.fixture(scope="module")
def secured() -> Iterator[RealEtcd]:
    with etcds.running(tls=True) as (one,):
        yield one


def client_of(endpoint: Endpoint, *, within_s: float = 20.0) -> Etcd:
    return Etcd(endpoint, deadline=Deadline.after(within_s, SystemClock()))


def test_a_member_says_how_it_is_and_who_else_there_is(member: RealEtcd) -> None:
    etcd = member.client()

    status, members = etcd.status(), etcd.members()

    assert status.version.startswith(member.release)
    assert status.leader == status.member_id == members[0].id
    assert (status.is_learner, status.errors) == (False, ())
    assert status.db_size >= status.db_size_in_use > 0
    assert [one.name for one in members] == ["cp1"]
    assert etcd.alarms() == ()


def test_keys_are_counted_and_hashed_as_of_a_revision(member: RealEtcd) -> None:
    etcd = member.client()
    before = etcd.count()
    hashed = etcd.hash(before.revision)

    member.put("/registry/later", "x")

    assert etcd.count().keys == before.keys + 1
    assert etcd.count(revision=before.revision).keys == before.keys
    assert etcd.hash(before.revision).hash == hashed.hash
    assert etcd.hash(before.revision + 1).hash != hashed.hash


def test_a_value_comes_back_and_a_key_that_is_not_there_is_none(member: RealEtcd) -> None:
    member.put("/registry/a", b"\x00\xff")

    assert member.client().get("/registry/a") == b"\x00\xff"
    assert member.client().get("/registry/nothing") is None


def test_a_revision_that_is_compacted_or_to_come_is_refused(member: RealEtcd) -> None:
    last = member.put("/registry/b", "x")
    member.call("/v3/kv/compaction", {"revision": str(last - 1)})

    with pytest.raises(PermanentError, match="compacted"):
        member.client().count(revision=last - 2)
    with pytest.raises(PermanentError, match="future"):
        member.client().count(revision=last + 1000)


def test_a_snapshot_has_the_promised_size_and_ends_with_its_sha256(member: RealEtcd) -> None:
    check = SnapshotCheck()

    with member.client().snapshot() as snapshot:
        for piece in snapshot.pieces:
            check.feed(piece)

    check.finish(promised_bytes=snapshot.size_bytes)


@pytest.mark.parametrize("lost", [1, 32, 512, 544])
def test_a_snapshot_that_was_cut_off_is_found_at_any_length(member: RealEtcd, lost: int) -> None:
    with member.client().snapshot() as snapshot:
        content = b"".join(snapshot.pieces)[:-lost]
    check = SnapshotCheck()
    check.feed(content)

    with pytest.raises(Incomplete, match="SHA-256"):
        check.finish(promised_bytes=len(content))
    with pytest.raises(Incomplete, match="ended after"):
        check.finish(promised_bytes=len(content) + lost)


def test_with_the_right_certificate_a_member_answers(secured: RealEtcd) -> None:
    assert secured.client().status().leader != "0"


def test_a_stranger_is_refused_and_told_so(secured: RealEtcd) -> None:
    assert secured.tls
    stranger = secured.tls.identity(signed_by=trustme.CA())
    endpoint = dataclasses.replace(secured.endpoint, identity=stranger)

    with pytest.raises((CertificateRefused, TransientError), match="certificate that opsd shows"):
        client_of(endpoint).status()


def test_a_member_of_another_authority_is_not_believed(secured: RealEtcd) -> None:
    assert secured.endpoint.identity
    other = trustme.CA().cert_pem.bytes().decode()
    identity = dataclasses.replace(secured.endpoint.identity, authority=other)
    endpoint = dataclasses.replace(secured.endpoint, identity=identity)

    with pytest.raises(CertificateRefused, match="not of the authority"):
        client_of(endpoint).status()


def test_a_member_with_tls_that_is_asked_without_says_so(secured: RealEtcd) -> None:
    endpoint = dataclasses.replace(secured.endpoint, identity=None)

    with pytest.raises((NotEtcd, TransientError, PermanentError), match="etcd on cp1"):
        client_of(endpoint).status()


def test_a_member_without_tls_that_is_asked_with_it_says_so(secured: RealEtcd) -> None:
    with etcds.running() as (plain,):
        endpoint = dataclasses.replace(plain.endpoint, identity=secured.endpoint.identity)

        with pytest.raises((NotEtcd, TransientError), match="is it http"):
            client_of(endpoint).status()


def test_a_key_that_is_none_is_an_error_of_the_configuration() -> None:
    identity = Identity(authority="no", certificate="no", key="secret-no")

    with pytest.raises(ConfigError, match="no PEM") as caught:
        client_of(Endpoint(name="etcd on x", identity=identity))

    assert "secret-no" not in str(caught.value)


def test_nobody_there_is_told_with_the_place() -> None:
    port = free_port()

    with pytest.raises(TransientError, match=f"etcd on x: ask its status: 127.0.0.1:{port}"):
        client_of(Endpoint(name="etcd on x", port=port)).status()


def test_a_frozen_member_ends_with_the_deadline() -> None:
    with etcds.running() as (member,):
        member.freeze()

        with pytest.raises(DeadlineExceeded):
            client_of(member.endpoint, within_s=1.0).status()


def test_a_gateway_that_is_switched_off_is_told() -> None:
    with etcds.running("3.7") as (member,):
        member.server.stop()
        member.start([member], "--enable-grpc-gateway=false")
        member.server.await_ready(lambda: listens(member.port))

        with pytest.raises(NotEtcd, match="enable-grpc-gateway"):
            client_of(member.endpoint).status()


def test_something_else_that_answers_is_no_etcd() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    with answering(answer) as port, pytest.raises(NotEtcd, match="not that of an etcd"):
        client_of(Endpoint(name="etcd on x", port=port)).status()


def test_a_stream_that_breaks_off_with_a_reason_gives_the_reason() -> None:
    lines = (
        b'{"result":{"remaining_bytes":"9","blob":"AAAA"}}\n{"error":{"message":"disk died"}}\n'
    )
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(lines), lines)

    with (
        answering(answer) as port,
        client_of(Endpoint(name="etcd on x", port=port)).snapshot() as snapshot,
        pytest.raises(TransientError, match="disk died"),
    ):
        b"".join(snapshot.pieces)


def answering(answer: bytes) -> Answering:
    return Answering(answer)


class Answering:
    """A server that says one thing to the first who connects."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> int:
        self._thread.start()
        port: int = self._listener.getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(self._answer)
