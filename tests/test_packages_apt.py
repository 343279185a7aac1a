"""Each trap of apt, on what apt 2.6 and 3.0 really printed."""

from __future__ import annotations

import pytest

from opsd.hosts.packages import apt
from opsd.hosts.packages.answers import Unreadable
from opsd.hosts.packages.pending import Pending, Standing
from tests.packaging import fixture

POLICY = fixture("apt-2.6_policy.txt")
HELD = fixture("apt_showhold.txt").split()


def read(simulation: str, policy: str = "", **known: list[str]) -> Pending:
    pending, _ = apt.read(f"{simulation}@policy\n{policy}", **known)
    return pending


def standing(pending: Pending) -> dict[str, Standing]:
    return {one.name: one.standing for one in pending.updates}


@pytest.mark.parametrize(
    ("name", "ready", "security"),
    [
        ("apt-2.6_debian12_sim_hold_halfconfigured.txt", 19, 18),
        ("apt-3.0_debian13_sim_phased.txt", 10, 10),
        ("apt-3.0_sim_dpkg-interrupted.txt", 11, 10),
        ("apt-3.0_sim_nonroot.txt", 11, 10),
        ("apt-3.0_sim_empty-lists.txt", 0, 0),
    ],
)
def test_as_many_updates_are_read_as_apt_counts(name: str, ready: int, security: int) -> None:
    pending = read(fixture(name), held=HELD)

    assert pending.count(Standing.READY) == ready
    assert len(pending.security) == security


def test_what_is_held_what_is_kept_back_and_what_is_phased_are_three_things() -> None:
    pending = read(fixture("apt-3.0_debian13_sim_phased.txt"), held=HELD)

    assert standing(pending)["kubelet"] is Standing.HELD
    assert standing(pending)["needsnew"] is Standing.KEPT
    assert standing(pending)["nfs-phased"] is Standing.PHASED
    assert standing(pending)["libssl3t64"] is Standing.READY


def test_an_older_apt_counts_phased_updates_to_those_that_are_kept_back() -> None:
    simulation = (
        "The following packages have been kept back:\n  needsnew nfs-phased\n"
        "0 upgraded, 0 newly installed, 0 to remove and 2 not upgraded.\n"
    )

    pending = read(simulation, POLICY)

    assert standing(pending) == {"needsnew": Standing.KEPT, "nfs-phased": Standing.PHASED}


def test_held_kubernetes_packages_are_not_counted_to_what_waits() -> None:
    pending = read(fixture("apt-2.6_debian12_sim_hold_halfconfigured.txt"), held=HELD)

    assert [one.name for one in pending.kubernetes] == ["kubeadm", "kubectl", "kubelet"]
    assert pending.count(Standing.HELD) == 0
    assert pending.count(Standing.KEPT) == 1


def test_an_error_of_apt_is_not_read_as_nothing_to_do() -> None:
    with pytest.raises(Unreadable, match="no summary"):
        read(fixture("apt-2.6_sim_unmet-deps_rc100.txt"))


def test_another_number_of_updates_than_apt_counts_is_not_believed() -> None:
    cut = fixture("apt-3.0_debian13_sim_phased.txt").replace("Inst apt ", "Insr apt ")

    with pytest.raises(Unreadable, match="counts 10 updates and names 9"):
        read(cut)


def test_new_packages_that_an_update_needs_count_and_are_no_security_fixes() -> None:
    simulation = (
        "1 upgraded, 1 newly installed, 0 to remove and 0 not upgraded.\n"
        "Inst linux-image-6.1.0-99 (6.1.99-1 Debian-Security:12/oldstable-security [amd64])\n"
        "Inst linux-image-amd64 [6.1.98-1] (6.1.99-1 Debian-Security:12/oldstable-security"
        " [amd64])\n"
    )

    pending = read(simulation)

    assert pending.count(Standing.READY) == pending.count(Standing.NEW) == 1
    assert [one.name for one in pending.security] == ["linux-image-amd64"]


@pytest.mark.parametrize(
    ("line", "is_security"),
    [
        (
            "Inst a [1] (2 Debian:12.15/oldstable, Debian-Security:12/oldstable-security [all])",
            True,
        ),
        ("Inst a [1] (2 Ubuntu:24.04/noble-updates, Ubuntu:24.04/noble-security [arm64])", True),
        ("Inst a [1] (2 UbuntuESMApps:24.04/noble-apps-security [arm64]) []", True),
        ("Inst a [1] (2 Debian:12.15/oldstable [all]) [apt-utils:amd64 ]", False),
        ("Inst a [1] (2 isv:kubernetes:core:stable:v1.33:pkgs.k8s.io [arm64])", False),
        ("Inst a [1] (2 Raspberry Pi Foundation:stable [arm64])", False),
        ("Inst a:arm64 [1] (2 [arm64])", False),
    ],
)
def test_the_origin_of_an_update_may_be_a_list_or_anything(line: str, is_security: bool) -> None:  # noqa: FBT001 - one of a table
    summary = "1 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.\n"

    pending = read(f"{summary}{line}\n")

    assert [one.is_security for one in pending.updates] == [is_security]


def test_a_fix_that_a_point_release_took_over_is_still_a_security_fix() -> None:
    simulation = (
        "1 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.\n"
        "Inst systemd [252.37-1] (252.39-1~deb12u2 Debian:12.15/oldstable [amd64])\n"
    )
    policy = """\
systemd:
  Installed: 252.37-1
  Candidate: 252.39-1~deb12u2
  Version table:
     252.39-1~deb12u2 500
        500 http://mirror.example.net/debian bookworm/main amd64 Packages
     252.38-1~deb12u1 500
        500 http://mirror.example.net/debian-security bookworm-security/main amd64 Packages
 *** 252.37-1 100
        100 /var/lib/dpkg/status
"""
    installed_later = policy.replace(
        " *** 252.37-1 100\n        100 /var/lib/dpkg/status\n", ""
    ).replace("     252.38-1", " *** 252.38-1")

    assert len(read(simulation, policy).security) == 1
    assert len(read(simulation, installed_later).security) == 0


def test_a_version_that_a_pin_forbids_is_no_fix() -> None:
    policy = """\
sudo:
  Installed: 1.9.15
  Candidate: 1.9.15
  Version table:
     1.9.15-esm1 -32768
     -32768 https://esm.example.net/ubuntu noble-infra-security/main arm64 Packages
 *** 1.9.15 500
        500 http://mirror.example.net/ubuntu noble/main arm64 Packages
        100 /var/lib/dpkg/status
"""

    found = apt.read_policies(policy)["sudo"]

    assert [version.sources for version in found.newer] == [()]


@pytest.mark.parametrize(
    ("source", "is_security"),
    [
        ("http://m/debian-security bookworm-security/main amd64 Packages", True),
        ("http://m/debian-security buster/updates/main amd64 Packages", True),
        ("https://own.example/mirror fixes/main arm64 Packages", True),
        ("http://m/debian bookworm-updates/main amd64 Packages", False),
        ("file:/repo/k135 ./ Packages", False),
    ],
)
def test_a_security_archive_is_told_by_its_suite_or_its_release_file(
    source: str,
    is_security: bool,  # noqa: FBT001 - one of a table
) -> None:
    archives = frozenset({"own.example/mirror fixes"})

    assert apt.is_security_source(source, archives) is is_security


def test_what_apt_knows_of_kubernetes_is_read_in_its_order() -> None:
    _, policies = apt.read(f"{fixture('apt-3.0_sim_empty-lists.txt')}@policy\n{POLICY}")

    assert policies["kubeadm"].installed == "1.35.3-1.1"
    assert policies["kubeadm"].candidate == "1.35.10-1.1"
    assert [one.version for one in policies["kubeadm"].newer] == ["1.35.10-1.1", "1.35.9-1.1"]
    assert policies["systemd"].installed == ""
