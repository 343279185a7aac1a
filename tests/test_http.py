"""With real servers on loopback that refuse, hang, drip, redirect and are not who they say."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from opsd import secrets
from opsd.clients.http import MOST_REDIRECTS, Call, call
from opsd.errors import ConfigError, DeadlineExceeded, PermanentError, TransientError
from tests.rig.sink import Answer, Request, Sink

TOKEN = "c4naryToken0123456789"

pytestmark = pytest.mark.real


def ask(url: str, *, timeout_s: float = 10, body: bytes | None = None) -> str:
    return call(Call(url=url, body=body), what="heartbeat", timeout_s=timeout_s)


@contextlib.contextmanager
def listening(serve: bytes | None = None) -> Iterator[int]:
    """A port that takes connections; it answers with these bytes, or never."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        if serve is not None:

            def answer() -> None:
                with contextlib.suppress(OSError):
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(4096)
                        connection.sendall(serve)

            threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]


def test_a_get_and_a_post_arrive_as_they_were_meant(sink: Sink) -> None:
    sink.answer(200, b"OK\n")

    got = ask(f"{sink.url}/ping/a-b?x=1&y=%20")
    posted = ask(f"{sink.url}", body=b"it broke")

    first, second = sink.wait_for(2)
    assert (got, posted) == ("OK", "OK")
    assert (first.method, first.path, first.body) == ("GET", "/ping/a-b?x=1&y=%20", b"")
    assert (second.method, second.path, second.body) == ("POST", "/", b"it broke")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (500, TransientError),
        (503, TransientError),
        (429, TransientError),
        (400, PermanentError),
        (404, PermanentError),
    ],
)
def test_a_bad_answer_is_an_error_that_says_it(
    status: int, error: type[Exception], sink: Sink
) -> None:
    sink.answer(status, b"no such check\n\x1b[31m")

    with pytest.raises(error, match=rf"^heartbeat: the server answered {status}: no such check"):
        ask(f"{sink.url}/{TOKEN}")


def test_a_server_that_is_not_there_is_a_passing_error(sink: Sink) -> None:
    sink.refuse()

    with pytest.raises(TransientError, match=r"heartbeat: .*Connection refused"):
        ask(f"{sink.url}/{TOKEN}")


def test_a_name_that_does_not_exist_is_a_passing_error() -> None:
    with pytest.raises(TransientError, match="resolve 'no-such-host"):
        ask(f"http://no-such-host.invalid/{TOKEN}")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_never_answers_costs_no_more_than_the_deadline(scheme: str) -> None:
    with listening() as port, pytest.raises(DeadlineExceeded, match="no answer within 1 s"):
        ask(f"{scheme}://127.0.0.1:{port}/", timeout_s=1)


def test_a_server_that_drips_is_left_and_its_connection_cut(sink: Sink) -> None:
    sink.answer_by(lambda _request: Answer(body=b"x" * 2000, drip_s=0.05))

    with pytest.raises(DeadlineExceeded):
        ask(sink.url, timeout_s=0.5)

    for thread in threading.enumerate():
        if thread.name == "http":
            thread.join(5)
    assert "http" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n", b"", b"HTTP/1.1 banana\r\n\r\n"])
def test_what_is_no_http_server_is_a_passing_error(answer: bytes) -> None:
    with listening(answer) as port, pytest.raises(TransientError, match="heartbeat: "):
        ask(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    "url",
    ["", "no url", "ftp://host/x", "http://", "http://[x", "http://h:99999/", "http://h/\udcff"],
)
def test_what_is_no_url_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError, match="heartbeat: this is no URL"):
        ask(url)


def test_a_redirect_within_the_host_is_followed(sink: Sink) -> None:
    def judge(request: Request) -> Answer:
        moved = {"Location": "/there"} if request.path == "/here" else {}
        return Answer(status=302 if moved else 200, headers=moved)

    sink.answer_by(judge)

    ask(f"{sink.url}/here")

    assert [request.path for request in sink.requests] == ["/here", "/there"]


def test_a_redirect_to_another_host_is_refused_and_it_learns_nothing(sink: Sink) -> None:
    there = f"http://localhost:{sink.port}/{TOKEN}"
    sink.answer_by(lambda _request: Answer(status=302, headers={"Location": there}))

    with pytest.raises(PermanentError, match="redirects to http://localhost") as caught:
        ask(sink.url)

    assert len(sink.requests) == 1
    assert TOKEN not in str(caught.value)


def test_a_redirect_in_a_circle_ends(sink: Sink) -> None:
    sink.answer_by(lambda _request: Answer(status=302, headers={"Location": "/"}))

    with pytest.raises(PermanentError, match="redirects"):
        ask(sink.url)

    assert len(sink.requests) == MOST_REDIRECTS + 1


@contextlib.contextmanager
def tls_server(ca: trustme.CA) -> Iterator[int]:
    """An HTTPS server for ``localhost`` that says 200 once."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with context.wrap_socket(connection, server_side=True) as wrapped:
                    wrapped.recv(4096)
                    wrapped.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]


def test_a_certificate_that_is_not_trusted_is_refused() -> None:
    with tls_server(trustme.CA()) as port, pytest.raises(PermanentError, match="certificate"):
        ask(f"https://localhost:{port}/{TOKEN}")


def test_a_certificate_of_a_trusted_authority_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    with tls_server(ca) as port:
        assert ask(f"https://localhost:{port}/") == "OK"


def test_the_certificate_of_another_host_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    with tls_server(ca) as port, pytest.raises(PermanentError, match="certificate"):
        ask(f"https://127.0.0.1:{port}/")


def test_tokens_in_a_url_are_redacted_from_then_on_and_words_are_not(sink: Sink) -> None:
    ask(f"{sink.url}/postgres-backup/{TOKEN}?key=K3y{TOKEN}")

    assert secrets.redact(f"run of postgres-backup {TOKEN}") == "run of postgres-backup [redacted]"
    assert TOKEN not in secrets.redact(f"key K3y{TOKEN}")
