"""A file server answers or it does not; an open port proves nothing."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from opsd.clients.rpc import Answer, Outcome, null
from tests.conftest import Machines
from tests.rig import nfsserver
from tests.rig.fleets import fleet_of, within
from tests.rig.kubeapi import eventually
from tests.rig.server import HOST, free_port


def ask(host: str, port: int = 2049, *, version: int = 4, within_s: float = 2.0) -> Answer:
    return null(host, port, version=version, deadline=within(within_s))


@contextlib.contextmanager
def speaking(reply: Callable[[bytes], bytes | None]) -> Iterator[int]:
    """A port where each call is answered so; None: with silence, until the end of the block."""
    over = threading.Event()
    with socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                answer = reply(connection.recv(4096))
                if answer is None:
                    over.wait(30)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            thread.join(30)


def message(call: bytes, *words: int) -> bytes:
    """A reply to a call, of these words after its number."""
    body = call[4:8] + struct.pack(f">{len(words)}I", *words)
    return struct.pack(">I", 1 << 31 | len(body)) + body


@pytest.mark.real
def test_a_server_that_works_answers_and_says_which_versions_it_serves(
    real_machines: Machines,
) -> None:
    _, nas = real_machines(2)
    with nfsserver.serving(nas):
        served, other = ask(nas.address), ask(nas.address, version=3)

    assert (served.outcome, served.is_served) == (Outcome.ANSWERED, True)
    assert (other.outcome, other.is_served) == (Outcome.ANSWERED, False)
    assert other.is_alive


@pytest.mark.real
def test_a_frozen_server_accepts_connections_and_counts_as_silent(
    real_machines: Machines,
) -> None:
    (nas,) = real_machines(1)
    with nfsserver.serving(nas) as server:
        server.freeze()
        socket.create_connection((nas.address, nfsserver.PORT), 2).close()
        frozen = ask(nas.address, within_s=1.0)
        server.thaw()
        thawed = ask(nas.address)

    assert frozen.outcome is Outcome.SILENT
    assert thawed.is_alive


@pytest.mark.real
def test_a_dead_server_refuses_and_a_dead_machine_is_silent(real_machines: Machines) -> None:
    (nas,) = real_machines(1)
    with nfsserver.serving(nas) as server:
        server.kill()
        refused = ask(nas.address)
        nas.unplug()
        silent = ask(nas.address, within_s=1.0)

    assert refused.outcome is Outcome.REFUSED
    assert silent.outcome is Outcome.SILENT


@pytest.mark.real
def test_a_machine_is_asked_as_another_one_sees_it(real_machines: Machines) -> None:
    rpi1, nas = real_machines(2)
    fleet = fleet_of([rpi1])
    (machine,) = fleet.roster().machines
    with nfsserver.serving(nas) as server, fleet.way(machine) as way:
        alive = null(nas.address, version=4, deadline=within(5), connect=way)
        server.kill()
        ask = partial(null, nas.address, version=4, connect=way)
        # Its socket may outlive it for a moment.
        eventually(lambda: ask(deadline=within(5)).outcome is Outcome.UNREACHABLE)

    assert alive.is_alive


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (lambda call: message(call, 1, 0, 0, 0, 0), Outcome.ANSWERED),
        (lambda call: message(call, 1, 0, 0, 8, 7, 7, 0), Outcome.ANSWERED),  # a verifier
        (lambda call: message(call, 1, 1, 0, 2, 2), Outcome.ANSWERED),  # denied: it works
        (lambda call: message(call, 1, 0, 0), Outcome.ANSWERED),  # cut short, but ours
        (lambda call: message(call, 0, 0, 0, 0, 0), Outcome.STRANGE),  # a call, no reply
        (lambda _: message(b"\0" * 8, 1, 0, 0, 0, 0), Outcome.STRANGE),  # of another number
        (lambda _: b"SSH-2.0-OpenSSH_9.2\r\n" * 9, Outcome.STRANGE),
        (lambda _: b"\xff\xff\xff\xff" * 9, Outcome.STRANGE),  # 2 GiB to come
        (lambda _: b"\x80\x00\x00\x00", Outcome.STRANGE),  # nothing to come
        (lambda _: b"\x80", Outcome.STRANGE),
        (lambda _: b"", Outcome.STRANGE),
        (lambda _: None, Outcome.SILENT),
    ],
)
def test_whatever_answers_is_understood(
    reply: Callable[[bytes], bytes | None], outcome: Outcome
) -> None:
    with speaking(reply) as port:
        answer = ask(HOST, port, within_s=0.5)

    assert answer.outcome is outcome
    assert answer.detail or answer.is_alive


def test_another_version_is_told_from_this_one() -> None:
    with speaking(lambda call: message(call, 1, 0, 0, 0, 2, 3, 3)) as port:
        answer = ask(HOST, port)

    assert (answer.outcome, answer.is_served) == (Outcome.ANSWERED, False)


def test_a_closed_port_is_refused_and_a_name_that_nobody_knows_unreachable() -> None:
    assert ask(HOST, free_port()).outcome is Outcome.REFUSED
    assert ask("no-such-server.invalid").outcome is Outcome.UNREACHABLE


@pytest.mark.parametrize("name", ["x" * 300, "nas\0", "n\udcffas", ""])
def test_what_is_no_name_is_unreachable(name: str) -> None:
    assert not ask(name, free_port(), within_s=1.0).is_alive
