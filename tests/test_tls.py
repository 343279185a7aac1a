"""The certificate that a server shows is read, whoever it trusts and whatever it asks for."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest
import trustme

from opsd.clients.tls import shown_certificate
from opsd.errors import TransientError
from opsd.hosts import certificates

HOST = "127.0.0.1"
AUTHORITY = trustme.CA()
LEAF = AUTHORITY.issue_cert("etcd.example.test", common_name="etcd")


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None, *, says: bytes = b"") -> Iterator[int]:
    """A port that takes one connection: by TLS, or `says` something, or nothing at all."""
    with socket.create_server((HOST, 0)) as listener:
        done = threading.Event()

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    if context is not None:
                        context.wrap_socket(connection, server_side=True).close()
                    elif says:
                        connection.sendall(says)
                    else:
                        done.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            done.set()
            thread.join(30)


def server(*, wants_client: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    LEAF.configure_cert(context)
    if wants_client:
        context.verify_mode = ssl.CERT_REQUIRED
        AUTHORITY.configure_trust(context)
    return context


@pytest.mark.parametrize("wants_client", [False, True])
def test_the_certificate_is_read_also_where_the_server_wants_one(*, wants_client: bool) -> None:
    with serving(server(wants_client=wants_client)) as port:
        der = shown_certificate(HOST, port, timeout_s=10)

    assert certificates.read_der("etcd", der).subject == "etcd"


def test_a_server_that_never_answers_is_not_waited_for() -> None:
    with serving(None) as port, pytest.raises(TransientError, match=r"no answer within 0\.2 s"):
        shown_certificate(HOST, port, timeout_s=0.2)


def test_a_server_without_tls_is_an_error_that_names_it() -> None:
    with (
        serving(None, says=b"SSH-2.0-x\r\n") as port,
        pytest.raises(TransientError, match=f"TLS handshake with {HOST} port {port}"),
    ):
        shown_certificate(HOST, port, timeout_s=10)


def test_a_closed_port_is_an_error_that_names_it() -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(TransientError, match=f"{HOST} port {port}: .*refused"):
        shown_certificate(HOST, port, timeout_s=10)


def test_an_address_that_is_none_is_an_error() -> None:
    with pytest.raises(TransientError, match=r"TLS handshake with no\.such\.host\.invalid"):
        shown_certificate("no.such.host.invalid", 6443, timeout_s=10)
