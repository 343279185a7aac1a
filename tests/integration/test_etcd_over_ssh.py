"""The way to a control plane over SSH: its files, its rights, and what is told if it is barred."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsd.backup.etcd import files, reaching
from opsd.backup.etcd.reaching import Reached, over_ssh
from opsd.errors import ConfigError, PermanentError, TransientError
from opsd.hosts.machine import Role
from opsd.hosts.roster import Entry
from opsd.hosts.script import Script
from opsd.testing import MemoryFleet
from tests.cluster.test_etcd_rebuild import SUDOERS
from tests.rig.fleets import fleet_of, within
from tests.rig.machines import AUTHORIZED_KEYS, Network, RealMachine
from tests.rig.planes import APISERVER_MANIFEST, FILES, Owner

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


@pytest.fixture
def machine(network: Network) -> RealMachine:
    made = network.machine("cp1", sudoers=SUDOERS)
    for name, content in FILES.items():
        made.write(f"/{name}", content, mode=0o600)
    return made


def reached(machine: RealMachine, place: Path) -> Reached:
    """How far opsd comes; there is no etcd, so never to the end."""
    entry = Entry(
        name=machine.name,
        address=machine.address,
        roles=frozenset({Role.CONTROL_PLANE}),
    )
    settings = Owner(place, []).table(host_root=None)
    with contextlib.ExitStack() as stack:
        fleet = fleet_of([machine], machines=(entry,))
        (found,) = over_ssh(fleet, settings, deadline=within(60), stack=stack)
    return found


@contextlib.contextmanager
def with_valid_certificates(machine: RealMachine) -> Iterator[None]:
    """The client's certificate and key are read before anything is connected to."""
    from tests.rig.etcds import Tls  # noqa: PLC0415 - makes keys

    identity = Tls(machine.home).identity()
    pki = "/etc/kubernetes/pki"
    machine.write(f"{pki}/etcd/ca.crt", identity.authority)
    machine.write(f"{pki}/apiserver-etcd-client.crt", identity.certificate)
    machine.write(f"{pki}/apiserver-etcd-client.key", identity.key, mode=0o600)
    yield


def test_each_barred_way_is_told_with_what_opens_it(machine: RealMachine, tmp_path: Path) -> None:
    with with_valid_certificates(machine):
        no_etcd = reached(machine, tmp_path)
        bar_forwarding(machine)
        no_forwarding = reached(machine, tmp_path)
    machine.sudoers("# nothing")
    no_rights = reached(machine, tmp_path)
    machine.kill()
    no_machine = reached(machine, tmp_path)

    assert isinstance(no_etcd.problem, TransientError)
    assert "127.0.0.1:2379" in str(no_etcd.problem)
    assert isinstance(no_forwarding.problem, PermanentError)
    assert "AllowTcpForwarding yes" in str(no_forwarding.problem)
    assert isinstance(no_rights.problem, PermanentError)
    assert "docs/etcd.md#rights" in str(no_rights.problem)
    assert isinstance(no_machine.problem, TransientError)
    assert no_machine.cause == "machine/cp1"


def test_files_of_odd_names_and_those_that_flags_name_elsewhere_are_brought(
    machine: RealMachine,
) -> None:
    flag = "    - --encryption-provider-config=/srv/my-keys/enc.yaml\n    image:"
    manifest = APISERVER_MANIFEST.replace("    image:", flag)
    machine.write("/etc/kubernetes/manifests/kube-apiserver.yaml", manifest, mode=0o600)
    machine.write("/srv/my-keys/enc.yaml", "the key", mode=0o600)
    machine.write("/etc/kubernetes/my notes -x.txt", "n", mode=0o600)
    machine.write("/etc/kubernetes/large", b"x" * (files.MOST_BYTES + 1))
    machine.write("/etc/kubernetes/tmp/kubeadm-backup-etcd/db", "old")
    fleet = fleet_of([machine])
    (asked,) = fleet.roster().machines

    (visit,) = fleet.visit([asked], Script.of([files.probe()]))
    found = files.received(visit.sections[files.NAME], machine="cp1")
    more = reaching._more(fleet, asked, found)

    assert {one.path for one in found} == {*FILES, "etc/kubernetes/my notes -x.txt"}
    assert [(one.path, one.content, one.mode) for one in more] == [
        ("srv/my-keys/enc.yaml", b"the key", 0o600)
    ]


def bar_forwarding(machine: RealMachine) -> None:
    keys = machine.run(f"cat /{AUTHORIZED_KEYS}", check=True).out
    machine.write(f"/{AUTHORIZED_KEYS}", f"restrict {keys}", mode=0o600)
    machine.run(f"chown opsd: /{AUTHORIZED_KEYS}", check=True)


def test_without_a_control_plane_the_way_out_is_told(tmp_path: Path) -> None:
    settings = Owner(tmp_path, []).table(host_root=None)

    for fleet, kind in (
        (MemoryFleet([], {}), ConfigError),
        (MemoryFleet([], {}, unknown="the API is down"), TransientError),
    ):
        with contextlib.ExitStack() as stack, pytest.raises(kind, match=r"\[\[machines\]\]"):
            list(over_ssh(fleet, settings, deadline=within(5), stack=stack))
