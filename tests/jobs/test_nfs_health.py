"""Hung NFS on real machines: a server that is frozen or dead, a broken way, mounts that hang."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from jobs.nfs_health import JOB, Settings
from opsd.clients.kube.client import Kube
from opsd.clock import Deadline, SystemClock
from opsd.errors import ConfigError
from opsd.hosts.visiting import SshFleet
from opsd.model import Finding, Outcome, Run, Severity
from opsd.runner import execute
from opsd.testing import context
from tests.rig import nfsmount, nfsserver
from tests.rig.fleets import access_to
from tests.rig.machines import Network, RealMachine
from tests.rig.nfsmount import KIND, Mode, NfsMount
from tests.rig.nfsserver import NfsServer

pytestmark = pytest.mark.real

POD = "0a1b2c3d-0000-4000-8000-00000000000{}"
VOLUME = "/var/lib/kubelet/pods/{}/volumes/kubernetes.io~nfs/pvc-{}"
BLOCK = (
    "nft add table inet x && nft 'add chain inet x out { type filter hook output priority 0; }' &&"
    " nft add rule inet x out tcp dport 2049 reject with tcp reset"
)


@dataclasses.dataclass
class Site:
    """Two nodes, a file server, and mounts of it."""

    nodes: list[RealMachine]
    server: NfsServer
    mounts: list[NfsMount]
    scratch: Path

    @property
    def name(self) -> str:
        """Of the file server."""
        return self.server.address

    def become(self, mode: Mode) -> None:
        for mount in self.mounts:
            mount.become(mode)

    def look(self, *, kube: Kube | None = None) -> Run:
        access = access_to(self.nodes, connect_timeout_s=5.0)

        def no_cluster(_deadline: Deadline) -> Kube:
            raise ConfigError("this test has no cluster")

        ctx = dataclasses.replace(
            context(
                scratch=self.scratch,
                kube=kube,
                clock=SystemClock(),
                timeout=timedelta(seconds=90),
                job=JOB.name,
            ),
            open_fleet=lambda deadline: SshFleet(access, open_kube=no_cluster, deadline=deadline),
        )
        run = execute(JOB, Settings(kinds=("nfs", "nfs4", KIND)), ctx)
        assert run.outcome is Outcome.COMPLETED, run.error
        return run


SiteOf = Callable[..., Site]


@pytest.fixture
def site_of(network: Network, tmp_path: Path) -> Iterator[SiteOf]:
    """Make a site of so many nodes, with one mount on the last and two on the first."""
    with contextlib.ExitStack() as stack:

        def make(*, nodes: int = 2) -> Site:
            machines = [network.machine(f"rpi{number + 1}") for number in range(nodes)]
            server = stack.enter_context(nfsserver.serving(network.machine("nas")))
            mounts = [
                stack.enter_context(
                    nfsmount.mounted(
                        machine,
                        VOLUME.format(POD.format(number), number),
                        source=f"{server.address}:/export/{number}",
                    )
                )
                for number, machine in enumerate([machines[0], *machines], 1)
            ]
            return Site(nodes=machines, server=server, mounts=mounts, scratch=tmp_path)

        yield make


def told(run: Run) -> dict[tuple[str, str], Finding]:
    """What is more than the lines of the table, by check and subject."""
    return {one.key: one for one in run.findings if one.severity is not Severity.INFO}


def test_where_all_is_well_each_machine_has_its_line_and_nothing_is_told(site_of: SiteOf) -> None:
    site = site_of()

    run = site.look()

    assert told(run) == {}
    assert run.unseen == ()
    lines = {one.subject: one.summary for one in run.findings}
    assert lines == {"machine/rpi1": "2 mounts answer", "machine/rpi2": "its mount answers"}


@pytest.mark.parametrize("fault", ["freeze", "kill"])
def test_a_server_that_is_down_is_one_incident(site_of: SiteOf, fault: str) -> None:
    site = site_of()
    getattr(site.server, fault)()
    site.become(Mode.HANG)

    run = site.look()

    found = told(run)
    incident = f"nfs/{site.name}"
    assert set(found) == {
        ("nfs.server_down", incident),
        ("nfs.hung", f"machine/rpi1/nfs/{site.name}"),
        ("nfs.hung", f"machine/rpi2/nfs/{site.name}"),
    }
    down = found["nfs.server_down", incident]
    assert down.severity is Severity.CRITICAL
    assert down.facts["pods_without_name"] == 3
    assert down.facts["hangs_on"] == "rpi1, rpi2"
    assert all(one.cause == incident for one in found.values() if one is not down)


def test_when_the_server_is_back_nothing_is_told_any_more(site_of: SiteOf) -> None:
    site = site_of()
    site.server.freeze()
    site.become(Mode.HANG)
    site.look()

    site.server.thaw()
    site.become(Mode.ANSWER)

    assert told(site.look()) == {}


def test_a_mount_that_hangs_alone_is_not_the_servers_fault(site_of: SiteOf) -> None:
    site = site_of()
    site.mounts[0].become(Mode.HANG)

    found = told(site.look())

    (hung,) = found.values()
    assert hung.key == ("nfs.hung", f"machine/rpi1/nfs/{site.name}")
    assert hung.facts["exports"] == "/export/1"
    assert str(hung.facts["server_call"]).startswith("answered")
    assert hung.cause == ""


def test_a_server_whose_disks_hang_answers_calls_and_is_one_incident_too(site_of: SiteOf) -> None:
    site = site_of()
    site.become(Mode.HANG)

    down = told(site.look())["nfs.server_down", f"nfs/{site.name}"]

    assert "answers calls" in down.summary


def test_a_machine_that_does_not_reach_the_server_is_told_from_a_dead_server(
    site_of: SiteOf,
) -> None:
    site = site_of()
    site.nodes[0].run(BLOCK, check=True)
    site.mounts[0].become(Mode.HANG)
    site.mounts[1].become(Mode.FAIL)

    found = told(site.look())

    (broken,) = found.values()
    assert broken.key == ("nfs.path_broken", f"machine/rpi1/nfs/{site.name}")
    assert broken.facts["exports"] == "/export/1, /export/2"


def test_stale_failing_and_slow_mounts_are_told_apart(site_of: SiteOf) -> None:
    site = site_of()
    for mount, mode in zip(site.mounts, (Mode.STALE, Mode.FAIL, Mode.SLOW), strict=True):
        mount.become(mode)

    found = told(site.look())

    assert set(found) == {
        ("nfs.stale", f"machine/rpi1/nfs/{site.name}"),
        ("nfs.errors", f"machine/rpi1/nfs/{site.name}"),
        ("nfs.slow", f"machine/rpi2/nfs/{site.name}"),
    }


def test_a_machine_that_is_away_hides_neither_the_others_nor_what_is_open_on_it(
    site_of: SiteOf,
) -> None:
    site = site_of()
    site.look()
    site.nodes[1].kill()
    site.mounts[0].become(Mode.STALE)

    run = site.look()

    assert set(told(run)) == {
        ("nfs.stale", f"machine/rpi1/nfs/{site.name}"),
        ("nfs.unknown", "machine/rpi2/nfs"),
    }
    assert told(run)["nfs.unknown", "machine/rpi2/nfs"].cause == "machine/rpi2"
    assert run.unseen == ("machine/rpi2",)


def test_a_server_is_called_although_nobody_who_mounts_it_can_be_asked(site_of: SiteOf) -> None:
    site = site_of(nodes=1)
    site.look()
    site.nodes[0].kill()

    alive = site.look()
    site.server.kill()
    dead = site.look()

    assert f"nfs/{site.name}" not in {one.subject for one in alive.findings}
    assert ("nfs.unknown", f"nfs/{site.name}") in told(dead)
    assert f"nfs/{site.name}" in dead.unseen


def test_without_the_right_to_look_a_dead_server_is_found_all_the_same(site_of: SiteOf) -> None:
    site = site_of()
    for machine in site.nodes:
        machine.sudoers("opsd ALL=(root) NOPASSWD: /bin/true")

    unknown = told(site.look())
    site.server.kill()
    dead = told(site.look())

    assert set(unknown) == {
        ("nfs.unknown", "machine/rpi1/nfs"),
        ("nfs.unknown", "machine/rpi2/nfs"),
    }
    assert ("nfs.server_down", f"nfs/{site.name}") in dead
