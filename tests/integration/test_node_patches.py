"""The job over real machines: real apt, dpkg, gpg, sudo and SSH, and what goes wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.node_patches import JOB, Settings
from opsd.clock import SystemClock
from opsd.model import Finding, Outcome, Run, Severity
from opsd.runner import execute
from opsd.testing import context
from tests.conftest import Machines
from tests.rig import fleets
from tests.rig.machines import RealMachine

pytestmark = pytest.mark.real

UPDATED = "touch /var/lib/apt/lists /var/lib/apt/lists/partial"
OWN_ARCHIVE = "/srv/apt/debian/dists/bookworm-security"


@dataclass(frozen=True)
class Looker:
    """Runs the job as the daemon would, over SSH."""

    scratch: Path
    machines: list[RealMachine]

    def look(self) -> Run:
        fleet = fleets.fleet_of(self.machines)
        ctx = context(scratch=self.scratch, fleet=fleet, clock=SystemClock(), job=JOB.name)
        return execute(JOB, Settings(), ctx)

    def found(self) -> dict[str, Finding]:
        """What is told, by check, without what is always so on the machines of the tests."""
        run = self.look()
        assert run.outcome is Outcome.COMPLETED, run.error
        usual = {"patches.state", "patches.release_old"}
        return {one.check: one for one in run.findings if one.check not in usual}


@pytest.fixture
def rpi1(real_machines: Machines) -> RealMachine:
    """A machine that fetched its lists just now."""
    (machine,) = real_machines(1)
    machine.run(UPDATED, check=True)
    return machine


@pytest.fixture
def looker(tmp_path: Path, rpi1: RealMachine) -> Looker:
    return Looker(tmp_path, [rpi1])


def state(run: Run, name: str = "rpi1") -> Finding:
    (found,) = (one for one in run.findings if one.key == ("patches.state", f"machine/{name}"))
    return found


def test_what_waits_on_a_real_machine_is_told_as_apt_would(looker: Looker) -> None:
    run = looker.look()

    facts = state(run).facts
    by_check = {one.check: one for one in run.findings}
    assert run.outcome is Outcome.COMPLETED
    assert (facts["pending"], facts["security"]) == (5, 3)
    assert (facts["held"], facts["kept_back"], facts["phased"]) == (1, 1, 1)
    assert facts["kubernetes_available"] == "1.36.4-1.1"
    # The one whose newest version comes from the main archive is a security fix as well.
    assert by_check["patches.security_pending"].facts["names"] == (
        "linux-image-opsd, opsd-fx-absorbed, opsd-fx-lib"
    )
    assert set(by_check) == {
        "patches.state",
        "patches.security_pending",
        "patches.kubernetes_available",
        "patches.release_old",
    }
    assert run.unseen == ()


def test_nothing_on_the_machine_is_changed_by_looking(looker: Looker, rpi1: RealMachine) -> None:
    everything = (
        "find / -xdev \\( -path /proc -o -path /sys -o -path /run -o -path /dev \\) -prune "
        "-o -type d -printf '%p %m %U\\n' -o -printf '%p %T@ %C@ %s %m %U\\n' | sort"
    )
    before = rpi1.run(everything, check=True).out

    looker.look()

    after = rpi1.run(everything, check=True).out
    assert len(before) > 100_000
    assert set(after.splitlines()) - set(before.splitlines()) == set()
    assert set(before.splitlines()) - set(after.splitlines()) == set()


def test_a_machine_that_was_upgraded_is_up_to_date_and_needs_its_reboot(
    looker: Looker, rpi1: RealMachine
) -> None:
    upgrade = "DEBIAN_FRONTEND=noninteractive apt-get -qq -y --with-new-pkgs upgrade"
    rpi1.run(upgrade, check=True)

    found = looker.found()

    # The hook of unattended-upgrades wrote the note, as on every Debian.
    assert "patches.security_pending" not in found
    assert found["patches.reboot_needed"].summary.endswith("linux-image-6.1.0-99-opsd")


def test_a_security_fix_under_a_hold_waits_with_its_hold(
    looker: Looker, rpi1: RealMachine
) -> None:
    rpi1.run("apt-mark hold opsd-fx-lib", check=True)

    found = looker.found()["patches.security_pending"]

    assert found.facts["held_back"] == "opsd-fx-lib"
    assert found.facts["security"] == 3
    assert "apt-mark showhold" in found.remedy


def test_a_kubelet_that_is_not_held_is_told(looker: Looker, rpi1: RealMachine) -> None:
    rpi1.run("apt-mark unhold kubelet", check=True)

    assert looker.found()["patches.kubernetes_not_held"].facts["not_held"] == "kubelet"


def test_a_repository_of_the_next_minor_is_told(looker: Looker, rpi1: RealMachine) -> None:
    rpi1.run(
        "sed -i s/v1.36/v1.37/ /etc/apt/sources.list.d/kubernetes.list && apt-get -qq update",
        check=True,
    )

    found = looker.found()

    assert "holds Kubernetes 1.37.4" in found["patches.kubernetes_repository"].summary
    assert "patches.kubernetes_available" not in found


def test_kubelet_and_kubeadm_of_two_versions_are_told(looker: Looker, rpi1: RealMachine) -> None:
    rpi1.run("apt-get -qq -y --allow-change-held-packages install kubeadm=1.36.2-1.1", check=True)

    found = looker.found()["patches.kubernetes_mixed"]

    assert "kubelet is 1.36.1 and kubeadm 1.36.2" in found.summary


def test_lists_that_are_gone_are_unknown_although_apt_finds_nothing_to_do(
    looker: Looker, rpi1: RealMachine
) -> None:
    rpi1.run("rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin", check=True)
    said = rpi1.run("apt-get -s upgrade", check=True).out

    run = looker.look()

    found = {one.check: one for one in run.findings}
    assert "0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded." in said
    assert "no package list was ever fetched" in found["patches.unknown"].summary
    assert "machine/rpi1/updates" in run.unseen
    assert state(run).facts.get("pending") is None


@pytest.mark.parametrize(
    ("since", "check"),
    [
        ("2 days ago", None),
        ("4 days ago", "patches.lists_stale"),
        ("8 days ago", "patches.unknown"),
    ],
)
def test_lists_age(looker: Looker, rpi1: RealMachine, since: str, check: str | None) -> None:
    rpi1.run(f"{UPDATED} -d '{since}'", check=True)

    found = set(looker.found())

    assert found & {"patches.lists_stale", "patches.unknown"} == ({check} if check else set())
    assert ("patches.security_pending" in found) == (check != "patches.unknown")


def test_a_security_archive_past_its_time_is_not_believed(
    looker: Looker, rpi1: RealMachine
) -> None:
    rpi1.run(
        f"cd {OWN_ARCHIVE} && sed -i '/^Suite:/a Valid-Until: Sat, 01 Nov 2025 00:00:00 UTC' "
        "/var/lib/apt/lists/*bookworm-security_InRelease",
        check=True,
    )

    found = looker.found()["patches.unknown"]

    assert "list of Debian-Security was valid until 2025-11-01" in found.summary


def test_a_package_whose_installation_failed_is_told(looker: Looker, rpi1: RealMachine) -> None:
    rpi1.run(
        "mkdir -p /tmp/b/DEBIAN && cd /tmp && printf 'Package: broken\\nVersion: 1\\n"
        "Architecture: all\\nMaintainer: n <n@n>\\nDescription: b\\n' >b/DEBIAN/control && "
        "printf '#!/bin/sh\\nexit 1\\n' >b/DEBIAN/postinst && chmod 755 b/DEBIAN/postinst && "
        "dpkg-deb -b b b.deb >/dev/null && ! dpkg -i b.deb",
        check=True,
    )

    found = looker.found()["patches.packages_broken"]

    assert found.summary == "rpi1: broken half configured: nothing can be upgraded"


def test_an_interrupted_dpkg_is_told(looker: Looker, rpi1: RealMachine) -> None:
    rpi1.write("/var/lib/dpkg/updates/0001", "")

    found = looker.found()["patches.packages_broken"]

    assert found.summary == "rpi1: dpkg was interrupted: nothing can be upgraded"
    assert rpi1.run("dpkg --configure -a && apt-get -s upgrade").status == 0
    assert "patches.packages_broken" not in looker.found()


def test_a_lock_that_a_live_process_holds_is_known_and_not_told_within_an_hour(
    looker: Looker, rpi1: RealMachine
) -> None:
    hold = (
        "import fcntl, time; f = open('/var/lib/dpkg/lock-frontend', 'w'); "
        "fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(600)"
    )
    rpi1.run(f'python3 -c "{hold}" >/tmp/held 2>&1 & until grep -q held /tmp/held; do :; done')
    refused = rpi1.run("apt-get -y install opsd-fx-app")

    run = looker.look()

    assert "Could not get lock" in refused.err
    assert state(run).facts["locked_by"] == "python3"
    assert "patches.lock_held" not in {one.check for one in run.findings}


def test_a_key_that_ends_soon_is_told_without_gpg(looker: Looker, rpi1: RealMachine) -> None:
    rpi1.run(
        "export GNUPGHOME=/tmp/g && mkdir -m 700 $GNUPGHOME && gpg --batch --quiet "
        "--passphrase '' --quick-generate-key soon ed25519 sign 10d && "
        "gpg --batch --armor --export >/etc/apt/keyrings/kubernetes-apt-keyring.asc && "
        "gpgconf --kill all; rm -rf $GNUPGHOME && "
        "sed -i 's#signed-by=[^]]*#signed-by=/etc/apt/keyrings/kubernetes-apt-keyring.asc#' "
        "/etc/apt/sources.list.d/kubernetes.list && chmod a-x /usr/bin/gpg",
        check=True,
    )

    found = looker.found()["patches.key_expires"]

    assert found.summary == (
        "rpi1: the key kubernetes-apt-keyring.asc expires in 10 days: "
        "then its updates are not seen"
    )


def test_a_service_that_still_runs_a_replaced_library_is_told(
    looker: Looker, rpi1: RealMachine
) -> None:
    rpi1.run(
        "l=$(readlink -f /usr/lib/*/libcrypto.so.3); cp $l /tmp/l && mv /tmp/l $l", check=True
    )

    found = looker.found()["patches.services_outdated"]

    assert found.facts["services"] == "ssh"


def test_a_machine_that_reboots_by_itself_is_told_where_it_belongs_to_a_cluster(
    tmp_path: Path, rpi1: RealMachine
) -> None:
    rpi1.write("/etc/apt/apt.conf.d/60reboot", 'Unattended-Upgrade::Automatic-Reboot "true";\n')
    lonely = Looker(tmp_path, [rpi1]).found()

    assert "patches.automatic_reboot" not in lonely


def test_without_any_right_everything_but_two_details_is_known(
    looker: Looker, rpi1: RealMachine
) -> None:
    rpi1.sudoers("# nothing")
    rpi1.run(
        "mkdir -p /var/log/unattended-upgrades && chmod 750 /var/log/unattended-upgrades && "
        "touch /var/lib/apt/periodic/unattended-upgrades-stamp "
        "/var/log/unattended-upgrades/unattended-upgrades.log",
        check=True,
    )

    run = looker.look()

    unknown = [one for one in run.findings if one.check == "patches.unknown"]
    assert state(run).facts["security"] == 3
    assert all(one.severity is Severity.INFO for one in unknown)
    assert set(run.unseen) == {"machine/rpi1/services", "machine/rpi1/unattended-log"}


def test_half_of_the_machines_away_spoil_nothing_for_the_others(
    tmp_path: Path, real_machines: Machines
) -> None:
    machines = real_machines(4)
    for machine in machines:
        machine.run(UPDATED, check=True)
    machines[1].kill()
    machines[2].reject_port()

    run = Looker(tmp_path, machines).look()

    told = {one.subject for one in run.findings if one.check == "patches.state"}
    assert run.outcome is Outcome.COMPLETED
    assert told == {"machine/rpi1", "machine/rpi4"}
    assert {"machine/rpi2", "machine/rpi3"} <= set(run.unseen)


def test_a_disk_without_space_is_told_as_the_reason_and_hides_no_more_than_it_must(
    looker: Looker, rpi1: RealMachine
) -> None:
    # Where apt, sudo and needrestart would keep what they need for a moment.
    rpi1.run(
        "for d in /tmp /var/tmp /var/cache/apt /var/log /root; do "
        "mount -t tmpfs -o size=4k tmpfs $d && cat /dev/zero >$d/full 2>/dev/null; done; true",
        check=True,
    )

    run = looker.look()

    unknown = {one.subject: one for one in run.findings if one.check == "patches.unknown"}
    assert list(unknown) == ["machine/rpi1/updates"]
    assert "No space left on device" in unknown["machine/rpi1/updates"].summary
    assert {"machine/rpi1/updates", "machine/rpi1/kubernetes"} <= set(run.unseen)
    assert state(run).facts["reboot"] == ""


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/dash", "/bin/busybox"])
def test_the_questions_are_understood_by_every_shell(
    looker: Looker, rpi1: RealMachine, shell: str
) -> None:
    rpi1.run(f"ln -sfn {shell} /bin/sh", check=True)

    run = looker.look()

    assert state(run).facts["security"] == 3
    assert run.unseen == ()
