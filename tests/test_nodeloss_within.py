"""What a machine says of itself, read so that nothing is concluded from what it did not say."""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from opsd.cluster.nodeloss.facts import Inside, Node
from opsd.cluster.nodeloss.within import (
    BOOT,
    IDENTITY,
    KUBELET,
    PODS,
    PROBES,
    read_identity,
    read_kubelet,
    read_pods,
    sighting_of,
)
from opsd.errors import TransientError
from opsd.hosts.fleet import Visit
from opsd.hosts.machine import Machine
from opsd.hosts.script import Script, Section

UID = "0a1b2c3d-1111-2222-3333-444455556666"
SLICE = f"kubepods-besteffort-pod{UID.replace('-', '_')}"
ID, ADDRESS = "f00dfeed", "10.0.0.13"
PID_CGROUPS = Path("/sys/fs/cgroup/pids")


def node(**changes: object) -> Node:
    values: dict[str, object] = {
        "name": "rpi3",
        "uid": "1",
        "created_at": datetime(2026, 11, 22, tzinfo=UTC),
        "boot_id": "boot-1",
        "machine_id": ID,
        "address": ADDRESS,
    }
    return Node(**(values | changes))  # type: ignore[arg-type]


def section(name: str, stdout: str, status: int = 0) -> Section:
    return Section(name=name, stdout=stdout, stderr="", status=status)


def said(**changes: Section | None) -> Visit:
    """A visit to a machine that is the node and runs one pod."""
    sections: dict[str, Section | None] = {
        IDENTITY: section(
            IDENTITY, f"machine-id {ID}\nhost rpi3\naddress 127.0.0.1/8\naddress {ADDRESS}/24\n"
        ),
        BOOT: section(BOOT, "boot-1\n"),
        KUBELET: section(KUBELET, "LoadState=loaded\nActiveState=failed\n"),
        PODS: section(PODS, f"tree\n0::/kubepods/pod{UID}/c1\nwalked\n"),
    }
    sections |= {name.replace("_", "-"): one for name, one in changes.items()}
    return Visit(
        machine=Machine(name="rpi3", address=ADDRESS),
        sections={name: one for name, one in sections.items() if one},
    )


def answers() -> Mapping[str, Section]:
    """What this machine says."""
    script = Script.of(PROBES)
    ended = subprocess.run(
        ["sh", "-s"], input=script.text.encode(), capture_output=True, check=True
    )
    return script.read(ended.stdout, ended.stderr)


@contextlib.contextmanager
def in_group(path: str) -> Iterator[None]:
    """A process in a control group of its own, as a container is."""
    group = PID_CGROUPS / path
    group.mkdir(parents=True)
    with subprocess.Popen(["sleep", "600"]) as sleeping:
        try:
            (group / "cgroup.procs").write_text(str(sleeping.pid))
            yield
        finally:
            sleeping.kill()
            sleeping.wait()
            while group != PID_CGROUPS:
                group.rmdir()
                group = group.parent


def test_a_look_inside_tells_boot_kubelet_and_pods() -> None:
    seen = sighting_of(said(), node())

    assert isinstance(seen, Inside)
    assert (seen.alive, seen.boot_id, seen.kubelet) == (True, "boot-1", "failed")
    assert seen.running == frozenset({UID})
    assert seen.detail == "kubelet failed, 1 pod runs"


@pytest.mark.parametrize(
    "identity",
    [
        f"machine-id {ID}\nhost rpi3.lan\naddress 10.9.9.9/24",  # found by its name
        f"machine-id {ID}\nhost RPI3\n",
        f"machine-id {ID}\nhost localhost\naddress {ADDRESS}/24",  # by its address
    ],
)
def test_a_machine_is_the_node_by_its_id_and_its_name_or_address(identity: str) -> None:
    assert read_identity(section(IDENTITY, identity)).is_of(node())


@pytest.mark.parametrize(
    "identity",
    [
        f"machine-id other\nhost rpi3\naddress {ADDRESS}/24",  # a configured wrong address
        f"machine-id {ID}\nhost rpi4\naddress 10.0.0.14/24",  # made from the same image
        f"machine-id \nhost rpi3\naddress {ADDRESS}/24",
        "",
    ],
)
def test_another_machine_proves_nothing(identity: str) -> None:
    seen = sighting_of(said(identity=section(IDENTITY, identity)), node())

    assert not isinstance(seen, Inside)
    assert not seen.alive
    assert seen.detail.startswith("another machine answers there")


@pytest.mark.parametrize(
    ("identity", "is_it"),
    [
        (f"host rpi3\naddress {ADDRESS}/24", True),
        ("host rpi3\naddress 10.0.0.14/24", False),
        (f"host rpi4\naddress {ADDRESS}/24", False),
    ],
)
def test_a_node_without_a_machine_id_is_known_by_name_and_address(
    identity: str,
    is_it: bool,  # noqa: FBT001 - a column of the table
) -> None:
    assert read_identity(section(IDENTITY, identity)).is_of(node(machine_id="")) is is_it


def test_a_machine_that_was_not_reached_is_told_with_the_reason() -> None:
    visit = Visit(
        machine=Machine(name="rpi3", address=ADDRESS), problem=TransientError("no route")
    )

    seen = sighting_of(visit, node())

    assert (type(seen).__name__, seen.alive, seen.detail) == ("Sighting", False, "no route")


@pytest.mark.parametrize(
    ("stdout", "status", "state"),
    [
        ("LoadState=loaded\nActiveState=active\n", 0, "active"),
        ("LoadState=loaded\nActiveState=inactive\n", 0, "inactive"),
        ("LoadState=loaded\nActiveState=activating\n", 0, "activating"),
        ("process\nLoadState=loaded\nActiveState=failed\n", 0, "active"),  # run by hand
        ("process\n", 0, "active"),
        ("LoadState=not-found\nActiveState=inactive\n", 0, ""),  # it has another name here
        ("", 0, ""),
        ("", 3, ""),  # processes are hidden
        ("LoadState=loaded\nActiveState=failed\n", 137, ""),
    ],
)
def test_the_kubelet_has_ended_only_where_systemd_says_so(
    stdout: str, status: int, state: str
) -> None:
    assert read_kubelet(section(KUBELET, stdout, status)) == state


@pytest.mark.parametrize(
    "group",
    [
        f"0::/kubepods/burstable/pod{UID}/0123",
        f"0::/kubepods.slice/kubepods-besteffort.slice/{SLICE}.slice/cri-containerd-0123.scope",
        f"0::/kubepods.slice/{SLICE}.slice:cri-containerd:0123",
        f"0::/kubepods/pod{UID}",
        f"8:pids:/kubepods/pod{UID}/0123",
        f"9:name=systemd:/mine/kubepods/besteffort/pod{UID}/0123",
    ],
)
def test_pods_are_known_by_the_control_groups_of_their_processes(group: str) -> None:
    assert read_pods(section(PODS, f"tree\n{group}\nwalked\n")) == frozenset({UID})


@pytest.mark.parametrize(
    ("stdout", "status"),
    [
        ("tree\n", 0),  # cut off
        ("walked\n", 0),  # no tree for pods: they are elsewhere
        (f"0::/kubepods/pod{UID}\nwalked\n", 0),
        ("tree\n0::/kubepods/strange\nwalked\n", 0),
        ("tree\nwalked\n", 137),
        ("", 3),
    ],
)
def test_no_pod_is_said_to_have_ended_when_that_cannot_be_told(stdout: str, status: int) -> None:
    assert read_pods(section(PODS, stdout, status)) is None


def test_where_no_process_is_in_a_group_of_pods_none_runs() -> None:
    assert read_pods(section(PODS, "tree\nwalked\n")) == frozenset()
    assert read_pods(None) is None


def test_this_machine_says_who_it_is_and_which_boot_this_is() -> None:
    found = answers()

    identity = read_identity(found[IDENTITY])
    assert identity.host == os.uname().nodename
    assert "127.0.0.1" in identity.addresses
    assert (
        found[BOOT].stdout.strip() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    )
    assert read_kubelet(found[KUBELET]) != "active"


@pytest.mark.skipif(not os.access(PID_CGROUPS, os.W_OK), reason="control groups cannot be made")
def test_a_container_is_seen_while_its_process_runs_and_not_after() -> None:
    uid = str(uuid.uuid4())
    tree = PID_CGROUPS / f"kubepods-{uid[:8]}"

    with in_group(f"{tree.name}/besteffort/pod{uid}/c1"):
        during = read_pods(answers()[PODS])
    tree.mkdir()
    try:
        after = read_pods(answers()[PODS])
    finally:
        tree.rmdir()

    assert during is not None
    assert uid in during
    assert after is not None
    assert uid not in after
