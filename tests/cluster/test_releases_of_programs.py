"""The table of releases is what the programs of two releases themselves say."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from pathlib import Path

import pytest

from opsd.upgrade import releases
from opsd.upgrade.version import Minor, Version
from tests.rig import controlplane
from tests.rig.controlplane import FAST, NEWEST, OLDEST, SYSTEM_MASTERS

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]

TABLE = releases.table()
BETWEEN = tuple(
    release
    for minor, release in TABLE.by_minor.items()
    if Minor.parse(OLDEST) < minor <= Minor.parse(NEWEST)
)


def said(minor: str, program: str, *argv: str) -> str:
    path: Path = controlplane.bin_dir(minor) / program
    if not path.exists():
        pytest.skip(f"{program} is not among the programs of {minor}")
    run = subprocess.run([path, *argv], capture_output=True, text=True, timeout=60, check=False)
    return run.stdout + run.stderr


@pytest.mark.parametrize("minor", [OLDEST, NEWEST])
def test_kubeadm_brings_the_etcd_and_the_coredns_of_the_table(minor: str) -> None:
    images = said(
        minor, "kubeadm", "config", "images", "list", "--kubernetes-version", f"{minor}.0"
    )

    brought = {
        line.partition(":")[0].rpartition("/")[2]: Version.of_image(line)
        for line in images.splitlines()
        if line.startswith("registry.k8s.io")
    }
    release = TABLE.of(Minor.parse(minor))
    assert release is not None
    assert (brought["etcd"], brought["coredns"]) == (release.etcd, release.coredns)


def test_the_flags_that_went_are_taken_before_and_refused_after() -> None:
    gone = [
        flag
        for release in BETWEEN
        for flag in release.flags
        if flag.component != "kubelet"  # whose program is not at hand
    ]

    for flag in gone:
        before = said(OLDEST, flag.component, f"--{flag.name}=1", "--version")
        after = said(NEWEST, flag.component, f"--{flag.name}=1", "--version")

        assert before.strip().endswith(said(OLDEST, flag.component, "--version").strip())
        assert f"unknown flag: --{flag.name}" in after
    assert gone


def test_no_flag_of_the_control_plane_went_that_the_table_does_not_have() -> None:
    for program in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        known = {
            flag.name for release in BETWEEN for flag in release.flags if flag.component == program
        }

        went = flags_of(said(OLDEST, program, "--help")) - flags_of(
            said(NEWEST, program, "--help")
        )

        assert went <= known, program


def flags_of(text: str) -> set[str]:
    return set(re.findall(r"^ +(?:-\w, )?--([a-z0-9-]+)", text, re.MULTILINE))


@pytest.mark.parametrize("flag", ["experimental-initial-corrupt-check", "enable-v2", "proxy"])
def test_etcd_refuses_the_flags_that_the_table_says(flag: str) -> None:
    release = TABLE.of(Minor.parse(NEWEST))
    assert release is not None

    assert any(flag.startswith(start) for start in release.etcd_flags_gone)
    assert f"not defined: -{flag}" in said(NEWEST, "etcd", f"--{flag}=1", "--version")


@pytest.fixture(scope="module")
def served() -> dict[str, set[str]]:
    """By release, every kind of every version that it can be made to serve."""
    found: dict[str, set[str]] = {}
    for minor in (OLDEST, NEWEST):
        clock = dataclasses.replace(
            FAST, apiserver={**FAST.apiserver, "runtime-config": "api/all=true"}
        )
        with controlplane.running(minor, clock=clock) as plane:
            api = plane.api_as("reader", group=SYSTEM_MASTERS)
            found[minor] = {
                f"{version['groupVersion']} {resource['kind']}"
                for group in api.get("/apis")["groups"]
                for version in group["versions"]
                for resource in api.get(f"/apis/{version['groupVersion']}")["resources"]
                if "/" not in resource["name"]
            }
    return found


def test_what_the_table_calls_gone_is_not_served(served: dict[str, set[str]]) -> None:
    for minor in (OLDEST, NEWEST):
        gone = {
            kind
            for kind in served[minor]
            if (at := TABLE.removed_at(*kind.split(" "))) and at <= Minor.parse(minor)
        }

        assert gone == set(), minor


def test_what_went_between_the_two_is_called_gone(served: dict[str, set[str]]) -> None:
    went = served[OLDEST] - served[NEWEST]

    assert {kind for kind in went if TABLE.removed_at(*kind.split(" ")) is None} == set()
    assert "networking.k8s.io/v1beta1 ServiceCIDR" in went


def test_kubeadm_no_longer_reads_the_configuration_that_the_table_says(tmp_path: Path) -> None:
    release = TABLE.of(Minor.parse(NEWEST))
    assert release is not None
    gone = release.kubeadm_config_gone
    file = tmp_path / "config.yaml"
    file.write_text(f"apiVersion: kubeadm.k8s.io/{gone}\nkind: ClusterConfiguration\n")

    before = said(OLDEST, "kubeadm", "config", "validate", "--config", str(file))
    after = said(NEWEST, "kubeadm", "config", "validate", "--config", str(file))

    assert "ok" in before
    assert gone in after
    assert "ok" not in after.split()
