"""The table of feature gates is what the programs of two releases themselves say."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from opsd.upgrade import gates
from opsd.upgrade.version import Minor
from tests.rig import controlplane

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]

TABLE = gates.table()
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")


UNKNOWN, LOCKED = "unrecognized feature gate", "is locked to"


def refused(
    minor: str,
    settings: Iterable[str],
    *,
    program: str = "kube-apiserver",
    because: tuple[str, ...] = (UNKNOWN, LOCKED),
) -> set[str]:
    """Those with which a program does not start; it says so before it looks at anything else."""

    def is_refused(setting: str) -> bool:
        argv: list[str | Path] = [
            controlplane.bin_dir(minor) / program,
            f"--feature-gates={setting}",
        ]
        run = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        return any(reason in run.stderr for reason in because)

    listed = list(settings)
    with ThreadPoolExecutor(2) as pool:
        answers = zip(listed, pool.map(is_refused, listed), strict=True)
        return {setting for setting, is_so in answers if is_so}


def in_force(target: Minor) -> tuple[set[str], set[str]]:
    """Settings that the table says are refused by `target`, and that it says are taken."""
    settings = {
        (gate, value)
        for gate in (*TABLE.removed, *TABLE.locked)
        for value in (True, False)
        # A gate may be younger than the target, which does not know it then.
        if gate in TABLE.removed or TABLE.locked[gate][0] <= target
    }
    no = {one for one in settings if TABLE.refusal(one[0], value=one[1], target=target)}
    return {_word(one) for one in no}, {_word(one) for one in settings - no}


@pytest.mark.parametrize("minor", [controlplane.OLDEST, controlplane.NEWEST])
def test_the_api_server_refuses_what_the_table_says_it_refuses(minor: str) -> None:
    expected, _ = in_force(Minor.parse(minor))

    assert refused(minor, expected) == expected


def test_the_api_server_takes_what_the_table_does_not_refuse() -> None:
    _, taken = in_force(Minor.parse(controlplane.NEWEST))

    assert refused(controlplane.NEWEST, taken) == set()


@pytest.mark.parametrize("program", PROGRAMS)
def test_all_programs_share_one_list(program: str) -> None:
    some = {f"{gate}=true" for gate in list(TABLE.removed)[::6]}

    assert refused(controlplane.NEWEST, some, program=program) == some


def test_no_gate_that_the_oldest_release_knows_is_missing_from_the_table() -> None:
    with controlplane.running(controlplane.OLDEST) as cluster:
        known = _gates_of(cluster)

    settings = {gate: f"{gate}=true" for gate in known}
    gone = refused(controlplane.NEWEST, settings.values(), because=(UNKNOWN,))

    assert len(known) > 200
    assert gone == {word for gate, word in settings.items() if gate in TABLE.removed}


def _gates_of(cluster: controlplane.ControlPlane) -> set[str]:
    """All gates that the API server has, also those that its help no longer lists."""
    kubectl = controlplane.bin_dir() / "kubectl"
    argv: list[str | Path] = [
        kubectl,
        "--kubeconfig",
        cluster.kubeconfig(),
        "get",
        "--raw",
        "/metrics",
    ]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    lines = run.stdout.splitlines()
    return {
        line.split('name="')[1].split('"')[0]
        for line in lines
        if line.startswith("kubernetes_feature_enabled{")
    }


def _word(setting: tuple[str, bool]) -> str:
    gate, value = setting
    return f"{gate}={str(value).lower()}"
