"""Fixtures for the real parts. They start on first use, one set for each test process."""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import secrets as random
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from opsd import secrets
from tests.rig import cheapkeys, controlplane, kubelet, machines, parts, postgres, s3, scratch
from tests.rig import sink as http_sink
from tests.rig import sshd as ssh_rig

PgOf = Callable[[int], postgres.PgServer]
Workers = Callable[[int], list[kubelet.FakeNode]]
Machines = Callable[[int], list[machines.RealMachine]]


def pytest_configure(config: pytest.Config) -> None:
    """Find the programs of the set-up, and clear what a killed run left."""
    parts.put_cache_on_path()
    scratch.sweep()
    programs = scratch.make_directory("programs")
    config.add_cleanup(functools.partial(shutil.rmtree, programs))
    if cheapkeys.install(programs):
        os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"


@pytest.fixture(autouse=True)
def nothing_of_another_test() -> Iterator[None]:
    """What one test revealed is not redacted in the next, nor is its way of logging kept."""
    before = secrets._revealed
    yield
    secrets._revealed = before
    structlog.reset_defaults()


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Let reports of hostile names (bytes that are no text) travel between test processes."""
    return printable((yield))


def printable(value: Any) -> Any:
    """The same lists and dictionaries with every string made encodable."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case list() | tuple():
            return type(value)(printable(item) for item in value)
        case dict():
            return {key: printable(item) for key, item in value.items()}
    return value


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in the last lines what was not tested, and how to get it."""
    reasons = collections.Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.getreports("skipped")
        if isinstance(report.longrepr, tuple)
    )
    if reasons:
        terminalreporter.section("NOT TESTED HERE", red=True, bold=True)
    for reason, count in sorted(reasons.items()):
        terminalreporter.line(f"{count} skipped: {reason}", red=True)


@pytest.fixture(scope="session")
def pg_majors() -> tuple[int, ...]:
    """Every PostgreSQL major that opsd supports, oldest first."""
    return postgres.MAJORS


@pytest.fixture(scope="session")
def pg_of() -> Iterator[PgOf]:
    """The shared server of a major: ``pg_of(16)``. Tests make databases of their own in it."""
    with contextlib.ExitStack() as stack:
        servers: dict[int, postgres.PgServer] = {}

        def server_of(major: int) -> postgres.PgServer:
            if major not in servers:
                servers[major] = stack.enter_context(postgres.running(major))
            return servers[major]

        yield server_of


@pytest.fixture(scope="session")
def pg(pg_of: PgOf) -> postgres.PgServer:
    """The shared server of the newest major."""
    return pg_of(postgres.MAJORS[-1])


@pytest.fixture
def empty_pg(pg: postgres.PgServer) -> postgres.PgServer:
    """The shared server of the newest major, with no database or role but its own."""
    pg.reset()
    return pg


@pytest.fixture
def own_pg() -> Iterator[postgres.PgServer]:
    """A server for this test alone, to be stopped, killed or frozen."""
    with postgres.running(postgres.MAJORS[-1]) as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[s3.S3Server]:
    """The shared S3 server. Tests make buckets of their own in it."""
    with s3.running() as server:
        yield server


@pytest.fixture
def own_s3_server() -> Iterator[s3.S3Server]:
    """An S3 server for this test alone, to be killed or frozen."""
    with s3.running() as server:
        yield server


@pytest.fixture
def sink() -> Iterator[http_sink.Sink]:
    """An HTTP server that keeps what it is sent."""
    with http_sink.running() as server:
        yield server


@pytest.fixture(scope="session")
def sshd() -> Iterator[ssh_rig.SshServer]:
    """The shared sshd, which lets the tests in as the user that runs them."""
    with ssh_rig.running() as server:
        yield server


@pytest.fixture(scope="session")
def restic() -> Path:
    """The restic of the set-up, which is also first on PATH."""
    return parts.program("restic")


@pytest.fixture(scope="session")
def rsync() -> Path:
    """The rsync of the machine."""
    return parts.program("rsync")


@pytest.fixture
def small_tmpfs() -> Iterator[Callable[[str], Path]]:
    """Make file systems that really fill up: ``small_tmpfs("8m")``."""
    if os.geteuid() != 0:
        pytest.skip("a file system can be mounted by root only")
    with contextlib.ExitStack() as stack:
        yield lambda size: stack.enter_context(scratch.tmpfs(size))


@pytest.fixture
def network() -> Iterator[machines.Network]:
    """A network for real machines, without any yet."""
    with machines.network() as made:
        yield made


@pytest.fixture
def real_machines(network: machines.Network) -> Machines:
    """Start real machines for this test alone: ``real_machines(3)``; named ``rpi1`` and so on."""
    return lambda count: [network.machine(f"rpi{number + 1}") for number in range(count)]


@pytest.fixture(scope="session")
def control_plane() -> Iterator[controlplane.ControlPlane]:
    """The shared Kubernetes control plane, on a fast clock. Tests use namespaces of their own."""
    with controlplane.running() as shared:
        yield shared


@pytest.fixture(scope="session")
def kubelets(control_plane: controlplane.ControlPlane) -> Iterator[kubelet.Kubelets]:
    """The nodes of the shared control plane; one is always healthy and takes no pods."""
    with kubelet.running(control_plane) as nodes:
        nodes.add("always-healthy", taints=(kubelet.NO_PODS,))
        yield nodes


@pytest.fixture
def workers(kubelets: kubelet.Kubelets) -> Iterator[Workers]:
    """Make a pool of nodes of the shared control plane for this test alone: ``workers(3)``."""
    pools: list[list[kubelet.FakeNode]] = []

    def make(count: int) -> list[kubelet.FakeNode]:
        pools.append(kubelets.add_pool(f"w{random.token_hex(3)}", count))
        return pools[-1]

    yield make
    for pool in pools:
        kubelets.remove(*(node.name for node in pool))


@pytest.fixture
def namespace(control_plane: controlplane.ControlPlane) -> Iterator[str]:
    """A namespace of the shared control plane for this test alone."""
    name = control_plane.namespace(f"t-{random.token_hex(4)}")
    yield name
    control_plane.api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def own_control_plane() -> Iterator[controlplane.ControlPlane]:
    """A control plane for this test alone, whose components it may stop, kill or freeze."""
    with controlplane.running() as own:
        yield own
