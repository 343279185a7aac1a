"""What waits, for how long that may be believed, and what Kubernetes is to do with it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from opsd.hosts.packages import lists as listing
from opsd.hosts.packages.answers import Unreadable
from opsd.hosts.packages.lists import FUTURE, STALE_AFTER, USELESS_AFTER
from opsd.model import Severity
from tests.packaging import (
    DAY_S,
    FIXTURES,
    HOUR_S,
    NOW_S,
    failed,
    findings,
    fixture,
    lists,
    state,
    system,
    told,
    unseen,
)

UPDATES = "machine/rpi3/updates"
SECURITY = (
    "2 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.\n"
    "Inst libssl3t64 [3.5.7-1] (3.5.7-2 Debian-Security:13/stable-security [arm64])\n"
    "Inst vim-common [9.1-1] (9.1-2 Debian:13.1/stable [all])\n@policy\n"
)
STALE_S = int(STALE_AFTER.total_seconds())
USELESS_S = int(USELESS_AFTER.total_seconds())


def simulated(name: str) -> str:
    return f"{fixture(name)}@policy\n"


def policy(name: str, installed: str, candidate: str, *, url: str = "file:/repo") -> str:
    return (
        f"{name}:\n  Installed: {installed}\n  Candidate: {candidate}\n  Version table:\n"
        f"     {candidate} 500\n        500 {url} ./ Packages\n"
        f" *** {installed} 100\n        100 /var/lib/dpkg/status\n"
    )


def test_a_machine_without_updates_is_up_to_date_and_nothing_else_is_told() -> None:
    observed = told()

    assert findings(observed) == {}
    assert unseen(observed) == []
    assert state(observed).summary == "up to date"


def test_security_fixes_are_one_finding_with_their_names_and_the_command() -> None:
    observed = told(apt=SECURITY)

    found = findings(observed)["patches.security_pending"]
    assert found.summary == "rpi3: 1 security fix waits: libssl3t64"
    assert found.severity is Severity.WARNING
    assert found.remedy == "on rpi3: apt upgrade"
    assert found.subject == UPDATES
    assert state(observed).facts["pending"] == 2
    assert state(observed).summary == "2 updates, 1 for security"


def test_updates_that_are_no_security_fixes_are_counted_and_not_told() -> None:
    observed = told(
        apt=SECURITY.replace("Debian-Security:13/stable-security", "Debian:13.1/stable")
    )

    assert findings(observed) == {}
    assert state(observed).facts["security"] == 0
    assert state(observed).facts["pending"] == 2


def test_the_list_of_names_is_bounded() -> None:
    lines = "".join(
        f"Inst lib{n} [1] (2 Debian-Security:13/stable-security [arm64])\n" for n in range(500)
    )
    summary = "500 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.\n"

    found = findings(told(apt=f"{summary}{lines}@policy\n"))["patches.security_pending"]

    assert found.summary == "rpi3: 500 security fixes wait: lib0, lib1 and 498 more"
    assert len(str(found.facts["names"])) < 1000


def test_a_machine_that_updates_itself_gets_two_days_before_it_is_told() -> None:
    own = '@installed\nAPT::Periodic::Unattended-Upgrade "1";\n'

    alone = findings(told(apt=SECURITY))["patches.security_pending"]
    helped = findings(told(apt=SECURITY, unattended=own))["patches.security_pending"]

    assert alone.steady_for == timedelta(0)
    assert helped.steady_for == timedelta(days=2)


def test_a_fix_that_is_held_back_is_told_with_its_hold() -> None:
    simulation = (
        "The following packages have been kept back:\n  containerd\n"
        "0 upgraded, 0 newly installed, 0 to remove and 1 not upgraded.\n@policy\n"
    )
    table = policy("containerd", "1.7.24", "1.7.28").replace(
        "file:/repo ./", "http://m/debian-security trixie-security/main"
    )

    observed = told(apt=simulation + table, dpkg="@packages=226\nhi |containerd|1.7.24|arm64\n")

    found = findings(observed)["patches.security_pending"]
    assert found.summary.endswith("containerd; 1 of them held back")
    assert found.remedy == "on rpi3: apt-mark showhold: is the hold on containerd still wanted?"
    assert state(observed).facts["held"] == 1


def test_lists_that_were_never_fetched_are_unknown_and_not_up_to_date() -> None:
    observed = told(
        apt=simulated("apt-3.0_sim_empty-lists.txt"), lists=f"@now {NOW_S}\n@stamp {NOW_S} /v\n"
    )

    found = findings(observed)["patches.unknown"]
    assert "no package list was ever fetched" in found.summary
    assert found.remedy == "on rpi3: apt-get update"
    assert unseen(observed) == [UPDATES]
    assert state(observed).facts.get("pending") is None
    assert state(observed).summary == "updates unknown"


@pytest.mark.parametrize(
    ("age_s", "checks"),
    [
        (0, set()),
        (STALE_S, set()),
        (STALE_S + 1, {"patches.lists_stale"}),
        (USELESS_S, {"patches.lists_stale"}),
        (USELESS_S + 1, {"patches.unknown"}),
    ],
)
def test_lists_grow_stale_after_three_days_and_useless_after_seven(
    age_s: int, checks: set[str]
) -> None:
    observed = told(lists=lists(age_s=age_s))

    assert set(findings(observed)) == checks
    assert unseen(observed) == ([UPDATES] if checks == {"patches.unknown"} else [])


@pytest.mark.parametrize(
    ("until", "is_believed"),
    [("Mon, 23 Nov 2026 06:40:00 UTC", True), ("Mon, 23 Nov 2026 06:39:59 UTC", False)],
)
def test_a_security_list_is_believed_as_long_as_it_says(
    until: str,
    is_believed: bool,  # noqa: FBT001 - one of a table
) -> None:
    observed = told(lists=lists(valid_until=until))

    assert ("patches.unknown" not in findings(observed)) is is_believed
    if not is_believed:
        summary = findings(observed)["patches.unknown"].summary
        assert "list of Debian-Security was valid until 2026-11-23" in summary


def test_a_list_from_the_future_says_that_a_clock_was_wrong() -> None:
    ahead = int(FUTURE.total_seconds())

    assert listing.read(lists(age_s=-ahead)).age == -FUTURE
    with pytest.raises(Unreadable, match="which is to come"):
        listing.read(lists(age_s=-ahead - 1))


def test_a_machine_whose_clock_is_a_year_off_is_judged_by_its_own_clock() -> None:
    wrong = lists(age_s=HOUR_S).replace(str(NOW_S), str(NOW_S - 365 * DAY_S))
    stamped = wrong.replace(str(NOW_S - HOUR_S), str(NOW_S - 365 * DAY_S - HOUR_S))

    assert findings(told(lists=stamped)) == {}


def test_without_a_security_archive_no_fix_would_be_seen() -> None:
    observed = told(lists=lists(security=False))

    assert set(findings(observed)) == {"patches.no_security_source"}
    assert "trixie-security" in findings(observed)["patches.no_security_source"].remedy
    assert state(observed).facts["security"] is None
    assert state(observed).summary == "no updates known"


def test_raspbian_marks_no_fixes_so_any_update_may_be_one() -> None:
    raspbian = fixture("os-release_debian13.txt").replace("ID=debian", "ID=raspbian")

    observed = told(system=system(raspbian), lists=lists(security=False), apt=SECURITY)

    found = findings(observed)
    assert set(found) == {"patches.security_pending"}
    plain = told(
        system=system(raspbian),
        lists=lists(security=False),
        apt=SECURITY.replace("Debian-Security:13/stable-security", "Raspbian:13/stable"),
    )
    assert set(findings(plain)) == {"patches.updates_pending"}
    assert findings(plain)["patches.updates_pending"].summary.startswith("rpi3: 2 updates pending")


def test_an_error_of_apt_is_told_in_its_own_words_once() -> None:
    error = failed(
        "E: Unmet dependencies. Try 'apt --fix-broken install' with no packages.\n"
        "E: Something that follows from it\n",
        status=100,
        stdout=simulated("apt-2.6_sim_unmet-deps_rc100.txt"),
    )
    held = "@packages=226\nhi |kubelet|1.35.3-1.1|arm64\nhi |kubeadm|1.35.3-1.1|arm64\n"

    observed = told(apt=error, dpkg=held)

    unknown = [one for one in findings(observed).values() if one.check == "patches.unknown"]
    assert [one.subject for one in unknown] == [UPDATES]
    assert "Unmet dependencies" in unknown[0].summary
    assert unseen(observed) == [UPDATES, "machine/rpi3/kubernetes", "cluster/kubernetes"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, "the answer was cut off"),
        (failed("", status=137), "it took too long and was ended"),
        (failed("sudo: a password is required\n"), "sudo refused: sudo: a password is required"),
        (failed("sh: 1: Syntax error\n", status=2), "sh: 1: Syntax error (exit status 2)"),
        ("no such thing\x1b[2J\udcff", "apt-get printed no summary"),
    ],
)
def test_what_cannot_be_read_is_unknown_with_its_reason(answer: str, why: str) -> None:
    observed = told(apt=answer)

    found = findings(observed)["patches.unknown"]
    assert why in str(found.facts["why"])
    assert found.severity is Severity.WARNING
    assert UPDATES in unseen(observed)


@pytest.mark.parametrize(
    ("manager", "why"),
    [
        ("rpm-ostree", "rpm-ostree is not supported"),
        ("", "no package manager that opsd knows"),
    ],
)
def test_a_system_that_is_not_supported_is_unknown(manager: str, why: str) -> None:
    observed = told(system=system("ID=fedora\nVERSION_ID=43\n", manager=manager))

    assert why in findings(observed)["patches.unknown"].summary


def dnf(check: str, info: str, *, status: int = 100) -> str:
    stamp = f"@stamp {NOW_S - HOUR_S}\n"
    return f"{check}@checked {status}\n{info}@listed 0\n{stamp}"


FEDORA = system("ID=fedora\nVERSION_ID=44\nSUPPORT_END=2027-05-19\n", manager="dnf")


def test_dnf_names_its_updates_and_its_advisories_say_which_are_fixes() -> None:
    answer = dnf(fixture("dnf4_check-update.txt"), fixture("dnf4_updateinfo_list.txt"))

    observed = told(system=FEDORA, dnf=answer)

    assert state(observed).facts["pending"] == 3
    found = findings(observed)["patches.security_pending"]
    assert found.facts["names"] == "openssl-libs, kernel-core"
    assert found.remedy == "on rpi3: dnf upgrade"


def test_a_repository_without_advisories_marks_no_fixes() -> None:
    observed = told(system=FEDORA, dnf=dnf(fixture("dnf4_check-update.txt"), ""))

    assert set(findings(observed)) == {"patches.updates_pending"}


def test_dnf_without_updates_is_up_to_date_and_one_that_failed_is_not() -> None:
    fine = told(system=FEDORA, dnf=dnf("", "", status=0))
    bad = told(system=FEDORA, dnf=failed("Error: Cache-only enabled but no cache\n"))
    lying = told(system=FEDORA, dnf=dnf("", "", status=100))

    assert findings(fine) == {}
    assert "no cache" in findings(bad)["patches.unknown"].summary
    assert "otherwise than it lists" in findings(lying)["patches.unknown"].summary


SUSE = system('ID="opensuse-leap"\nVERSION_ID="16.0"\n', manager="zypper")


def zypper(patches: str, updates: str, *, age_s: int = HOUR_S) -> str:
    return f"{patches}\n@patches 0\n{updates}\n@updates 0\n@stamp {NOW_S - age_s}\n"


def test_zypper_names_packages_and_security_patches() -> None:
    answer = zypper(fixture("zypper_xml_lp.xml"), fixture("zypper_xml_lu.xml"))

    observed = told(system=SUSE, zypper=answer)

    assert state(observed).facts["pending"] == 3
    found = findings(observed)["patches.security_pending"]
    assert found.facts["names"] == "RHSA-2026:1234, RHSA-2026:1300"
    assert found.remedy == "on rpi3: zypper patch"


@pytest.mark.parametrize(
    "patches",
    ["", "<stream></stream>", "<stream", '<!DOCTYPE x [<!ENTITY a "b">]><stream/>'],
)
def test_zypper_that_lists_nothing_is_unknown(patches: str) -> None:
    observed = told(system=SUSE, zypper=zypper(patches, fixture("zypper_xml_lu.xml")))

    assert set(findings(observed)) == {"patches.unknown"}


def test_alpine_and_arch_mark_no_fixes() -> None:
    alpine = told(
        system=system("ID=alpine\nVERSION_ID=3.23.0\n", manager="apk"),
        apk=f"Installed:   Available:\nbusybox-1.36.1-r15   < 1.36.1-r19\n@status 0\n"
        f"@stamp {NOW_S - HOUR_S}\n",
    )
    arch = told(
        system=system("ID=arch\n", manager="pacman"),
        pacman=f"linux 6.17.1-1 -> 6.17.2-1\nfoo 1-1 -> 2-1 [ignored]\n@status 0\n"
        f"@stamp {NOW_S - HOUR_S}\n",
    )

    assert set(findings(alpine)) == set(findings(arch)) == {"patches.updates_pending"}
    assert findings(arch)["patches.updates_pending"].facts["updates"] == 1
    assert state(arch).facts["held"] == 1


def test_alpine_without_an_index_is_unknown_although_it_names_no_update() -> None:
    observed = told(
        system=system("ID=alpine\nVERSION_ID=3.23.0\n", manager="apk"),
        apk="Installed:   Available:\n@status 0\n",
    )

    assert "no package list was ever fetched" in findings(observed)["patches.unknown"].summary


def kube(kubelet: str, kubeadm: str, *, hold: str = "hi ") -> str:
    return f"@packages=226\n{hold}|kubelet|{kubelet}|arm64\nhi |kubeadm|{kubeadm}|arm64\n"


def test_held_kubernetes_packages_of_one_version_are_fine() -> None:
    observed = told(dpkg=kube("1.35.3-1.1", "1.35.3-1.1"), kubelet="v1.35.3")

    assert findings(observed) == {}
    assert state(observed).facts["kubelet"] == "1.35.3-1.1"


def test_a_kubelet_that_is_not_held_may_be_replaced_by_any_upgrade() -> None:
    found = findings(told(dpkg=kube("1.35.3-1.1", "1.35.3-1.1", hold="ii ")))

    assert set(found) == {"patches.kubernetes_not_held"}
    assert found["patches.kubernetes_not_held"].remedy == "on rpi3: apt-mark hold kubelet"


def test_kubectl_alone_need_not_be_held() -> None:
    assert findings(told(dpkg="@packages=9\nii |kubectl|1.35.3-1.1|arm64\n")) == {}


def test_a_kubelet_that_was_upgraded_and_not_restarted_is_told() -> None:
    found = findings(told(dpkg=kube("1.35.10-1.1", "1.35.10-1.1"), kubelet="v1.35.3"))

    assert found["patches.kubernetes_mixed"].summary == (
        "rpi3: kubelet 1.35.10 is installed and 1.35.3 runs"
    )


def test_kubelet_and_kubeadm_of_two_versions_are_an_upgrade_that_was_not_finished() -> None:
    found = findings(told(dpkg=kube("1.35.9-1.1", "1.35.10-1.1"), kubelet="v1.35.9"))

    assert set(found) == {"patches.kubernetes_mixed"}
    assert "kubelet is 1.35.9 and kubeadm 1.35.10" in found["patches.kubernetes_mixed"].summary


def test_a_newer_patch_of_kubernetes_is_for_information() -> None:
    answer = simulated("apt-3.0_sim_empty-lists.txt") + policy(
        "kubelet", "1.35.9-1.1", "1.35.10-1.1"
    )

    found = findings(told(dpkg=kube("1.35.9-1.1", "1.35.9-1.1"), apt=answer))

    assert set(found) == {"patches.kubernetes_available"}
    assert found["patches.kubernetes_available"].severity is Severity.INFO


def test_a_repository_of_the_next_minor_is_told() -> None:
    answer = simulated("apt-3.0_sim_empty-lists.txt") + policy(
        "kubelet", "1.35.9-1.1", "1.36.5-1.1"
    )

    found = findings(told(dpkg=kube("1.35.9-1.1", "1.35.9-1.1"), apt=answer))

    assert set(found) == {"patches.kubernetes_repository"}
    assert "v1.35" in found["patches.kubernetes_repository"].remedy


def test_the_repository_that_was_closed_is_told() -> None:
    found = findings(told(dpkg=kube("1.35.9-1.1", "1.35.9-1.1"), keys="@legacy\n"))

    assert "closed in 2024" in found["patches.kubernetes_repository"].summary


def test_every_recorded_output_is_used() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_packages_*.py"))

    assert {one.name for one in FIXTURES.iterdir() if one.name not in tests} <= {"README.txt"}
