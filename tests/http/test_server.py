from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from opsd.errors import PermanentError, TransientError
from opsd.http.app import Answer, App
from opsd.http.server import Server
from tests.rig.server import HOST, free_port


def fail() -> Answer:
    raise TransientError("the state is busy")


def crash() -> Answer:
    raise ZeroDivisionError


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    paths = {"/good": lambda: Answer(body="all is well é\n"), "/bad": fail, "/crash": crash}
    with Server(App(paths), address=HOST, port=0) as server:
        yield server


def ask(server: Server, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    with closing(http.client.HTTPConnection(HOST, server.port, timeout=20)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, headers, response.read()


def test_a_path_answers_and_nothing_keeps_or_embeds_it(server: Server) -> None:
    status, headers, body = ask(server, "/good")

    assert (status, body.decode()) == (200, "all is well é\n")
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "server" not in headers


def test_head_says_the_length_and_no_more(server: Server) -> None:
    status, headers, body = ask(server, "/good", "HEAD")

    assert (status, headers["content-length"], body) == (200, "15", b"")


def test_the_query_does_not_matter(server: Server) -> None:
    assert ask(server, "/good?verbose")[0] == 200


@pytest.mark.parametrize("path", ["/", "/good/", "/../good", "/good%00"])
def test_everything_else_is_not_there(server: Server, path: str) -> None:
    assert ask(server, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(server: Server, method: str) -> None:
    status, headers, _ = ask(server, "/good", method)

    assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_what_cannot_be_told_is_unavailable_with_the_reason(server: Server) -> None:
    assert ask(server, "/bad")[::2] == (503, b"TransientError: the state is busy\n")


def test_a_crash_ends_one_answer_and_not_the_server(server: Server) -> None:
    assert ask(server, "/crash")[0] == 500
    assert ask(server, "/good")[0] == 200


def test_clients_that_say_nothing_keep_nobody_out(server: Server) -> None:
    silent = [socket.create_connection((HOST, server.port)) for _ in range(20)]
    try:
        assert ask(server, "/good")[0] == 200
    finally:
        for one in silent:
            one.close()


@pytest.mark.parametrize("junk", [b"\x00\xff\r\n\r\n", b"GET /" + b"a" * 40_000 + b"\r\n\r\n"])
def test_nonsense_is_refused(server: Server, junk: bytes) -> None:
    with socket.create_connection((HOST, server.port), timeout=20) as connection:
        connection.sendall(junk)
        answer = connection.recv(4096)

    assert answer.split(b" ")[1][:1] == b"4"
    assert ask(server, "/good")[0] == 200


def test_an_address_that_is_taken_is_an_error_with_the_fix(server: Server) -> None:
    with pytest.raises(PermanentError, match=r"listen on .*: .*in use; change http\.listen"):
        Server(App({}), address=HOST, port=server.port)


def test_the_port_is_free_when_the_server_is_over() -> None:
    port = free_port()

    for _ in range(2):
        with Server(App({}), address=HOST, port=port) as server:
            assert ask(server, "/")[0] == 404

    with pytest.raises(OSError, match="refused"):
        socket.create_connection((HOST, port))
