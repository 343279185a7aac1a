"""Whatever a machine says of its mounts, the run goes on, and nothing becomes well by it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.nfs_health import JOB, Settings
from opsd.clock import SystemClock
from opsd.hosts.machine import Machine
from opsd.hosts.nfs import mounts, probes
from opsd.hosts.script import Section
from opsd.model import Outcome
from opsd.runner import execute
from opsd.testing import MemoryFleet, context
from tests.rig.server import HOST, free_port

RPI1 = Machine(name="rpi1", address=HOST)
NAMES = [probe.name for probe in probes.probes(("nfs",))]
WORDS = st.sampled_from(
    [
        *("device", "xprt:", "uptime", "-", " - ", "nfs4", "0:52", "hung", "137", "waiting", "0"),
        *("nas:/x", "[::1]:/x", ":/", "mounted", "on", "/a", "with", "fstype", "GETATTR:", "²"),
        *("stat:", "Stale file handle", "sudo: no", "rw,addr=127.0.0.1,port=99999", "[1.5] nfs:"),
        *("server", "not responding", "\x1b[31m", "\udcff", "\\040", "9" * 400, "1e999", "nan"),
    ]
)
LINES = st.lists(st.lists(WORDS | st.text(max_size=4), max_size=12).map(" ".join), max_size=6)
MOUNT = f"812 25 0:52 / /mnt rw shared:4 - nfs4 nas:/export rw,vers=4,hard,addr={HOST},port="


def run(answers: dict[str, Section | str], scratch: Path) -> dict[tuple[str, str], str]:
    """Findings by check and subject."""
    done = execute(
        JOB,
        Settings(),
        context(
            scratch=scratch,
            fleet=MemoryFleet([RPI1], {"rpi1": answers}),
            clock=SystemClock(),
            job=JOB.name,
        ),
    )
    assert done.outcome is Outcome.COMPLETED, done.error
    return {one.key: one.summary for one in done.findings}


@given(st.fixed_dictionaries({}, optional={name: LINES.map("\n".join) for name in NAMES}))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_answer_stops_the_run(tmp_path: Path, answers: dict[str, Section | str]) -> None:
    run({**answers, probes.MOUNTS: MOUNT + "1"}, tmp_path)


@given(LINES.map("\n".join))
def test_no_line_of_mounts_stops_the_parser(text: str) -> None:
    for mount in mounts.parse(f"{text}\n{MOUNT}{text}"):
        assert mount.server.isprintable()
        assert 0 < mount.port <= 65535
        assert (mount.version in {3, 4}, mount.is_soft in {True, False}) == (True, True)
        assert mount.export.startswith("/")
        assert mount.address


@pytest.mark.parametrize("missing", [probes.MOUNTS, probes.LOOKS, probes.TASKS])
@pytest.mark.parametrize(
    "section",
    [
        None,
        Section(name="x", stdout="", stderr="", status=137),
        Section(name="x", stdout="", stderr="sudo: a password is required", status=1),
        Section(name="x", stdout="", stderr="timeout is not installed", status=9),
    ],
)
def test_what_is_missing_is_unknown_and_never_well(
    tmp_path: Path, missing: str, section: Section | None
) -> None:
    answers: dict[str, Section | str] = {
        probes.MOUNTS: MOUNT + str(free_port()),
        probes.LOOKS: "0:52 nas:/export 0 1.0 1.1 ",
        probes.TASKS: "",
    }
    if section is None:
        del answers[missing]
    else:
        answers[missing] = section

    found = run(answers, tmp_path)

    assert ("nfs.unknown", "machine/rpi1/nfs") in found
    assert found["nfs.state", "machine/rpi1"] == "not known"
