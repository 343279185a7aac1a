"""What is half installed, which key ends, what a machine does on its own, and what it runs."""

from __future__ import annotations

import base64
import subprocess
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from opsd.hosts.machine import Machine
from opsd.hosts.packages import keys, reboot, unattended
from opsd.hosts.packages.answers import Unreadable
from opsd.hosts.packages.keys import EXPIRES_SOON, KeyFile
from opsd.hosts.packages.running import ENDS_SOON
from opsd.hosts.packages.upkeep import LOCKED_LONG_S
from opsd.model import Severity
from tests.packaging import (
    CONTROL,
    DAY_S,
    HOUR_S,
    NODE,
    NOW_S,
    ROUTER,
    failed,
    findings,
    fixture,
    judged,
    kernel,
    lists,
    state,
    system,
    told,
    unseen,
    visit,
)
from tests.rig.parts import program

OWN = '@installed\nAPT::Periodic::Unattended-Upgrade "1";\n'
REBOOTS = f'{OWN}Unattended-Upgrade::Automatic-Reboot "true";\n'


@pytest.mark.parametrize(
    ("line", "trouble"),
    [
        ("iF |brokenpkg|1.0|all", "half configured"),
        ("iU |brokenpkg|1.0|all", "unpacked and not configured"),
        ("iH |brokenpkg|1.0|all", "half installed"),
        ("iHR|brokenpkg|1.0|all", "to be reinstalled"),
        ("iW |brokenpkg|1.0|all", "waiting for a trigger"),
        ("it |brokenpkg|1.0|all", "with a trigger to run"),
        ("hF |brokenpkg|1.0|all", "half configured"),
    ],
)
def test_a_package_that_is_not_simply_installed_stops_every_upgrade(
    line: str, trouble: str
) -> None:
    found = findings(told(dpkg=f"{line}\n@packages=226\n"))

    summary = found["patches.packages_broken"].summary
    assert summary == f"rpi3: brokenpkg {trouble}: nothing can be upgraded"


def test_an_interrupted_dpkg_is_told_although_apt_does_not_say_so() -> None:
    answer = f"{fixture('apt-3.0_sim_dpkg-interrupted.txt')}@policy\n"

    found = findings(told(dpkg="@packages=226\n@interrupted=yes\n", apt=answer))

    assert found["patches.packages_broken"].remedy == "on rpi3: dpkg --configure -a"


def test_dpkg_that_lists_no_package_is_unknown() -> None:
    observed = told(dpkg="@packages=0\n")

    assert "dpkg lists no package" in findings(observed)["patches.unknown"].summary
    assert "machine/rpi3/packages" in unseen(observed)


@pytest.mark.parametrize(
    ("held_s", "is_told"), [(LOCKED_LONG_S - 1, False), (LOCKED_LONG_S, True)]
)
def test_a_lock_is_normal_for_an_hour(held_s: int, is_told: bool) -> None:  # noqa: FBT001 - a table
    answer = (
        "@packages=226\n@lock=/var/lib/dpkg/lock-frontend\n@lock_pid=812\n@lock_name=apt-get\n"
        f"@lock_s={held_s}\n"
    )

    observed = told(dpkg=answer)

    assert ("patches.lock_held" in findings(observed)) is is_told
    assert state(observed).facts["locked_by"] == "apt-get"


def gpg(home: Path, *arguments: str) -> bytes:
    done = subprocess.run(
        [program("gpg"), "--homedir", home, "--batch", "--quiet", "--yes", *arguments],
        capture_output=True,
        check=True,
        timeout=60,
    )
    return done.stdout


@pytest.fixture
def keyring(tmp_path: Path) -> Path:
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    return home


def made(home: Path, name: str, expires: str, *, kind: str = "ed25519") -> str:
    options = ("--passphrase", "", "--pinentry-mode", "loopback")
    gpg(home, *options, "--quick-generate-key", name, kind, "sign", expires)
    listed = gpg(home, "--list-keys", "--with-colons", name).decode().splitlines()
    return next(line.split(":")[9] for line in listed if line.startswith("fpr:"))


def answer_of(*files: tuple[str, bytes]) -> str:
    return "".join(
        f"@key {path}\n{base64.encodebytes(content).decode()}" for path, content in files
    )


@pytest.fixture(autouse=True)
def _without_agents(keyring: Path) -> object:
    yield
    conf = program("gpg").with_name("gpgconf")
    subprocess.run([conf, "--homedir", keyring, "--kill", "all"], check=False, timeout=60)


@pytest.mark.real
@pytest.mark.parametrize("kind", ["ed25519", "rsa2048"])
@pytest.mark.parametrize("armor", ["--no-armor", "--armor"])
def test_the_expiry_of_a_key_is_read_from_its_file_as_gpg_says(
    keyring: Path, kind: str, armor: str
) -> None:
    made(keyring, "repo", "2031-05-06", kind=kind)
    listed = gpg(keyring, "--list-keys", "--with-colons").decode()
    expires_s = int(next(line for line in listed.splitlines() if line[:4] == "pub:").split(":")[6])

    (key,) = keys.read(answer_of(("/etc/apt/keyrings/k.gpg", gpg(keyring, armor, "--export"))))

    assert isinstance(key, KeyFile)
    assert key.expires_at == datetime.fromtimestamp(expires_s, UTC)


@pytest.mark.real
def test_the_newest_signature_of_a_key_says_how_long_it_lasts(keyring: Path) -> None:
    fingerprint = made(keyring, "repo", "2031-05-06")
    later = ("--faked-system-time", "20271231T000000!")
    gpg(keyring, *later, "--quick-set-expire", fingerprint, "2035-01-02")

    (key,) = keys.read(answer_of(("/k.gpg", gpg(keyring, "--export"))))

    assert isinstance(key, KeyFile)
    assert key.expires_at is not None
    assert key.expires_at.date() == date(2035, 1, 2)


@pytest.mark.real
def test_a_key_that_never_expires_makes_its_file_never_expire(keyring: Path) -> None:
    made(keyring, "one", "2031-05-06")
    limited = gpg(keyring, "--export")
    made(keyring, "two", "never")

    both = list(keys.read(answer_of(("/a.gpg", limited), ("/b.gpg", gpg(keyring, "--export")))))

    assert [isinstance(key, KeyFile) and key.expires_at is None for key in both] == [False, True]


@pytest.mark.real
def test_of_several_keys_the_last_to_end_counts(keyring: Path) -> None:
    made(keyring, "one", "2031-05-06")
    made(keyring, "two", "2029-05-06")

    (key,) = keys.read(answer_of(("/k.gpg", gpg(keyring, "--export"))))

    assert isinstance(key, KeyFile)
    assert key.expires_at is not None
    assert key.expires_at.date() == date(2031, 5, 6)


@pytest.mark.real
def test_the_signature_of_somebody_else_does_not_prolong_a_key(keyring: Path) -> None:
    ends = made(keyring, "repo", "2031-05-06")
    other = made(keyring, "somebody else", "never")
    later = ("--faked-system-time", "20271231T000000!")
    gpg(keyring, *later, "--local-user", other, "--quick-sign-key", ends)

    (key,) = keys.read(answer_of(("/k.gpg", gpg(keyring, "--export", ends))))

    assert isinstance(key, KeyFile)
    assert key.expires_at is not None
    assert key.expires_at.date() == date(2031, 5, 6)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "holds no key"),
        (b"not a key at all", "is not understood"),
        (b"\x98\xff\x04", "is not understood"),
        (b"\x99\x00\x06\x06aaaaa", "is not understood"),
        (bytes(range(128, 256)), ""),
    ],
)
def test_a_file_that_holds_no_key_is_unknown(content: bytes, why: str) -> None:
    (found,) = keys.read(answer_of(("/k.gpg", content)))

    assert isinstance(found, Unreadable)
    assert why in str(found)


@pytest.mark.real
@pytest.mark.parametrize(
    ("left", "summary"),
    [
        (EXPIRES_SOON, None),
        (EXPIRES_SOON - timedelta(seconds=1), "expires in 30 days: then its updates are not seen"),
        (timedelta(0), "expired on 2031-05-06: its updates are not seen"),
    ],
)
def test_a_key_is_told_a_month_before_it_ends(
    keyring: Path, left: timedelta, summary: str | None
) -> None:
    made(keyring, "repo", "2031-05-06")
    answer = answer_of(("/etc/apt/keyrings/kubernetes.gpg", gpg(keyring, "--export")))
    (key,) = keys.read(answer)
    assert isinstance(key, KeyFile)
    assert key.expires_at is not None

    found = findings(told(keys=answer, at=key.expires_at - left)).get("patches.key_expires")

    assert (found and found.summary) == (summary and f"rpi3: the key kubernetes.gpg {summary}")
    assert found is None or found.subject == "machine/rpi3/keys/kubernetes.gpg"


@pytest.mark.real
def test_one_key_that_cannot_be_read_hides_no_other(keyring: Path) -> None:
    made(keyring, "repo", "2031-05-06")
    answer = "@key /a.gpg\n@unreadable\n" + answer_of(("/b.gpg", gpg(keyring, "--export")))

    observed = told(keys=answer, at=datetime(2031, 5, 1, tzinfo=UTC), lists=lists())

    found = findings(observed)
    assert "patches.key_expires" in found
    assert found["patches.unknown"].remedy == "on rpi3: chmod a+r /a.gpg"
    assert unseen(observed) == ["machine/rpi3/keys"]


@pytest.mark.parametrize(
    ("changes", "is_enabled"),
    [
        ("", True),
        ('APT::Periodic::Enable "0";\n', False),
        ('APT::Periodic::Unattended-Upgrade "0";\n', False),
        ("@timer enabled\n", True),
        ("@timer \n", True),
        ("@timer disabled\n", False),
        ("@timer masked\n", False),
    ],
)
def test_unattended_upgrades_are_on_when_nothing_switches_them_off(
    changes: str,
    is_enabled: bool,  # noqa: FBT001 - one of a table
) -> None:
    assert unattended.read(OWN + changes).is_enabled is is_enabled


def test_settings_without_the_program_upgrade_nothing() -> None:
    assert not unattended.read(OWN.replace("@installed\n", "")).is_enabled


@pytest.mark.parametrize(
    ("machine", "severity"),
    [(NODE, Severity.WARNING), (CONTROL, Severity.CRITICAL), (ROUTER, Severity.CRITICAL)],
    ids=["worker", "control plane", "router"],
)
def test_a_machine_that_reboots_by_itself_is_worse_where_all_others_need_it(
    machine: Machine, severity: Severity
) -> None:
    found = findings(told(machine, unattended=REBOOTS))

    assert found["patches.automatic_reboot"].severity is severity


def test_a_machine_that_does_nothing_for_the_cluster_may_reboot_by_itself() -> None:
    assert findings(told(replace(NODE, roles=frozenset()), unattended=REBOOTS)) == {}


def test_a_reboot_that_is_due_is_told_with_its_time() -> None:
    settings = f'{REBOOTS}Unattended-Upgrade::Automatic-Reboot-Time "02:00";\n'
    due = kernel() + f"noted_s={NOW_S}\nnote=/run/reboot-required\n"

    found = findings(told(unattended=settings, kernel=due))["patches.automatic_reboot"]

    assert found.summary == (
        "rpi3: reboots by itself at 02:00 when an update asks for it, without a drain, "
        "and one asks now"
    )


@pytest.mark.parametrize("value", ["false", "0", "no", ""])
def test_a_machine_that_does_not_reboot_by_itself_is_fine(value: str) -> None:
    assert findings(told(unattended=REBOOTS.replace("true", value))) == {}


def test_a_containerd_that_may_be_replaced_under_its_pods_is_told_until_it_is_spared() -> None:
    packages = (
        "@packages=9\nhi |kubelet|1.35.3-1.1|arm64\nhi |kubeadm|1.35.3-1.1|arm64\n"
        "ii |containerd|1.7.24|arm64\n"
    )
    spared = f'{OWN}Unattended-Upgrade::Package-Blacklist:: "containerd$";\n'

    assert set(findings(told(dpkg=packages, unattended=OWN))) == {"patches.runtime_unattended"}
    assert findings(told(dpkg=packages, unattended=spared)) == {}
    held = packages.replace("ii |containerd", "hi |containerd")
    assert findings(told(dpkg=held, unattended=OWN)) == {}


LOG = """\
2026-11-22 06:31:02,118 INFO Starting unattended upgrades script
2026-11-22 06:31:09,871 ERROR Installing the upgrades failed!
2026-11-23 06:31:02,118 INFO Starting unattended upgrades script
2026-11-23 06:31:07,200 INFO No packages found that can be upgraded unattended
"""


def test_only_the_last_unattended_upgrade_counts() -> None:
    first = "".join(LOG.splitlines(keepends=True)[:2])

    assert unattended.failure(LOG) == ""
    found = findings(told(unattended=OWN, unattended_log=first))["patches.unattended_failed"]
    assert found.summary.endswith("failed: Installing the upgrades failed!")


def test_a_log_that_may_not_be_read_is_for_information_and_hides_nothing_else() -> None:
    refused = failed("sudo: a password is required\n")

    observed = told(unattended=f"{REBOOTS}@ran {NOW_S}\n", unattended_log=refused)

    found = findings(observed)
    assert set(found) == {"patches.automatic_reboot", "patches.unknown"}
    assert found["patches.unknown"].severity is Severity.INFO
    assert "let opsd run tail -n 100" in found["patches.unknown"].remedy
    assert unseen(observed) == ["machine/rpi3/unattended-log"]


@pytest.mark.parametrize(
    ("running", "installed", "newest"),
    [
        ("6.1.0-55-cloud-amd64", ["6.1.0-56-cloud-amd64"], "6.1.0-56-cloud-amd64"),
        ("6.1.0-56-cloud-amd64", ["6.1.0-55-cloud-amd64"], ""),
        ("6.1.0-9-amd64", ["6.1.0-10-amd64"], "6.1.0-10-amd64"),
        ("6.1.0-55-cloud-amd64", ["6.1.0-56-amd64"], ""),
        ("6.6.51+rpt-rpi-v8", ["6.12.25+rpt-rpi-2712", "6.6.51+rpt-rpi-2712"], ""),
        ("6.6.51+rpt-rpi-v8", ["6.12.25+rpt-rpi-v8"], "6.12.25+rpt-rpi-v8"),
        ("6.8.0-1013-raspi", ["6.8.0-1020-raspi", "6.8.0-99-generic"], "6.8.0-1020-raspi"),
        (
            "5.14.0-503.11.1.el9_5.x86_64",
            ["5.14.0-570.1.1.el9_6.x86_64"],
            "5.14.0-570.1.1.el9_6.x86_64",
        ),
        ("6.1.0-40-amd64", ["6.12.43+deb12-amd64"], "6.12.43+deb12-amd64"),
        ("6.12.13-0-lts", ["6.12.13-0-lts"], ""),
        ("6.18.44-fc-v669", ["6.1.0-99-opsd"], ""),
        ("strange", ["stranger"], ""),
    ],
)
def test_only_a_newer_kernel_of_the_same_flavour_asks_for_a_reboot(
    running: str, installed: list[str], newest: str
) -> None:
    assert reboot.read(kernel(running, installed=installed)).newest == newest


def test_a_newer_kernel_asks_for_a_reboot_without_anybody_noting_it() -> None:
    answer = kernel("6.6.51+rpt-rpi-v8", installed=["6.12.25+rpt-rpi-v8"])

    observed = told(kernel=answer)

    found = findings(observed)["patches.reboot_needed"]
    assert found.summary == (
        "rpi3: needs a reboot: kernel 6.12.25+rpt-rpi-v8 is installed, 6.6.51+rpt-rpi-v8 runs"
    )
    assert found.remedy.startswith("kubectl drain rpi3 ")
    assert state(observed).summary == "up to date, needs a reboot"
    assert state(observed).facts["uptime_d"] == 40


def test_what_the_distribution_noted_is_told_with_its_age_and_its_packages() -> None:
    packages = fixture("reboot-required.pkgs_debian12.txt").split()
    answer = kernel() + f"noted_s={NOW_S - 3 * DAY_S}\nnote=/run/reboot-required\n"
    answer += "".join(f"@for {one}\n" for one in packages)

    found = findings(told(kernel=answer))["patches.reboot_needed"]

    assert found.summary == ("rpi3: needs a reboot for 3 days: linux-image-6.1.0-56-cloud-amd64")


def test_a_machine_outside_the_cluster_is_not_drained() -> None:
    answer = kernel() + f"noted_s={NOW_S}\nnote=/run/reboot-required\n"

    found = findings(told(ROUTER, kernel=answer))["patches.reboot_needed"]

    assert "kubectl" not in found.remedy


def test_a_kernel_that_was_rebuilt_under_its_name_asks_for_a_reboot() -> None:
    build = "build=#1 SMP PREEMPT_DYNAMIC Debian 6.12.48-1 (2025-09-20)"
    answer = kernel().replace("build=#1 SMP", build)
    package = "@packages=9\nii |linux-image-6.12.48+deb13-amd64|{}|amd64\n"

    same = told(kernel=answer, dpkg=package.format("6.12.48-1"))
    newer = told(kernel=answer, dpkg=package.format("6.12.48-2"))

    assert findings(same) == {}
    assert "6.12.48-2 is installed" in findings(newer)["patches.reboot_needed"].summary


def test_a_running_kernel_without_its_modules_is_told_first() -> None:
    gone = kernel(installed=["6.12.50+deb13-amd64"]).replace("has_modules=yes\n", "")
    without = gone.replace("modular=yes\n", "").replace("@installed 6.12.50+deb13-amd64\n", "")

    assert set(findings(told(kernel=gone))) == {"patches.modules_missing"}
    assert findings(told(kernel=without)) == {}
    container = "running=6.12.48\nbuild=#1 SMP\nmodular=yes\n"
    assert findings(told(kernel=container)) == {}


def test_needrestart_is_not_believed_about_the_kernel() -> None:
    said = fixture("needrestart-b_kernel-pending.txt")

    assert "KSTA: 3" in said
    assert findings(told(services=said)) == {}


def test_services_that_still_run_replaced_code_are_told() -> None:
    said = fixture("needrestart-b_kernel-pending.txt")
    said += "NEEDRESTART-SVC: ssh.service\nNEEDRESTART-SVC: containerd.service\n"
    said += "NEEDRESTART-SESS: pi @ session #3\n"

    found = findings(told(services=said))["patches.services_outdated"]

    assert found.facts["services"] == "containerd, ssh"


def test_microcode_that_waits_is_for_information() -> None:
    said = fixture("needrestart-b_kernel-pending.txt").replace("UCSTA: 1", "UCSTA: 2")

    assert findings(told(services=said))["patches.microcode"].severity is Severity.INFO


@pytest.mark.parametrize("said", ["", "Can't locate NeedRestart.pm in @INC\n"])
def test_needrestart_that_failed_is_not_read_as_nothing_to_restart(said: str) -> None:
    broken = failed("BEGIN failed--compilation aborted\n", status=2, stdout=said)

    assert set(findings(told(services=broken))) == {"patches.unknown"}


def test_a_warning_of_sudo_is_no_refusal() -> None:
    said = "NEEDRESTART-VER: 3.6\nNEEDRESTART-SVC: ssh.service\n"
    warned = failed("sudo: unable to resolve host rpi3\n", status=0, stdout=said)

    assert set(findings(told(services=warned))) == {"patches.services_outdated"}


def test_needrestart_without_root_is_for_information() -> None:
    observed = told(services=failed("sudo: a password is required\n"))

    found = findings(observed)["patches.unknown"]
    assert found.severity is Severity.INFO
    assert found.subject == "machine/rpi3/services"


@pytest.mark.parametrize(
    ("day", "check", "text"),
    [
        (date(2026, 7, 11), None, ""),
        (date(2026, 7, 12), "patches.release_old", "long-term support only"),
        (date(2028, 6, 30) - ENDS_SOON - timedelta(days=1), "patches.release_old", "only"),
        (date(2028, 6, 30) - ENDS_SOON, "patches.release_ended", "from 2028-07-01 on"),
        (date(2028, 6, 30), "patches.release_ended", "from 2028-07-01 on"),
        (date(2028, 7, 1), "patches.release_ended", "since 2028-06-30"),
    ],
)
def test_debian_12_is_old_first_and_ends_then(day: date, check: str | None, text: str) -> None:
    at = datetime(day.year, day.month, day.day, 6, tzinfo=UTC)

    found = findings(told(system=system(fixture("os-release_debian12.txt")), at=at))

    assert set(found) == ({check} if check else set())
    assert all(text in one.summary for one in found.values())


def test_the_dates_that_a_machine_carries_are_believed_first() -> None:
    tables = (
        "@debian\nversion,codename,series,created,release,eol,eol-lts,eol-elts\n"
        "13,Trixie,trixie,2023-06-10,2025-08-09,2026-11-01,2026-11-10,2035-06-30\n"
    )

    observed = told(system=system(fixture("os-release_debian13.txt"), tables=tables))

    assert (
        "no security fixes since 2026-11-10" in findings(observed)["patches.release_ended"].summary
    )
    assert state(observed).facts["support_ends"] == "2026-11-10"


def test_ubuntu_past_its_end_is_fine_with_the_subscription_that_it_has() -> None:
    focal = system('ID=ubuntu\nVERSION_ID="20.04"\nPRETTY_NAME="Ubuntu 20.04.6 LTS"\n')
    subscribed = lists() + (
        "@release esm.example_infra_ubuntu_dists_focal-infra-security_InRelease\n"
        "Origin: UbuntuESM\nLabel: UbuntuESM\nSuite: focal-infra-security\n"
    )

    assert set(findings(told(system=focal))) == {"patches.release_ended"}
    assert findings(told(system=focal, lists=subscribed)) == {}


def test_a_release_that_nobody_knows_is_for_information() -> None:
    observed = told(system=system("ID=debian\nVERSION_ID=14\nVERSION_CODENAME=forky\n"))

    found = findings(observed)["patches.unknown"]
    assert found.severity is Severity.INFO
    assert found.subject == "machine/rpi3/release"


def test_a_rolling_release_does_not_end() -> None:
    arch = system("ID=arch\n", manager="pacman")
    answer = f"@status 1\n@stamp {NOW_S - HOUR_S}\n"

    observed = told(system=arch, pacman=answer, dpkg="", apt="", lists="")

    assert findings(observed) == {}


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=strategies.data())
def test_no_answer_whatever_it_is_spoils_the_run(data: strategies.DataObject) -> None:
    name = data.draw(strategies.sampled_from(sorted(PLAUSIBLE)))
    answer = PLAUSIBLE[name]
    start = data.draw(strategies.integers(0, len(answer)))
    end = data.draw(strategies.integers(start, min(len(answer), start + 40)))
    text = strategies.text(max_size=12)
    other = data.draw(strategies.one_of(text, strategies.sampled_from(NUMBERS)))

    observed = judged(visit({name: answer[:start] + other + answer[end:]}))

    assert state(observed).subject == "machine/rpi3"


NUMBERS = ("9" * 30, "-1", "²", "٣", "0", "\udcff", "\n@release \n", "\n@key \n", "\n@stamp \n")
PLAUSIBLE = {
    "system": system(fixture("os-release_debian13.txt")),
    "dpkg": "hi |kubelet|1.35.3-1.1|arm64\n@packages=226\n@lock=/l\n@lock_pid=812\n@lock_s=9\n",
    "lists": lists(valid_until="Mon, 30 Nov 2026 06:40:00 UTC"),
    "apt": f"{fixture('apt-3.0_debian13_sim_phased.txt')}@policy\n{fixture('apt-2.6_policy.txt')}",
    "unattended": f'{REBOOTS}Unattended-Upgrade::Package-Blacklist:: "(";\n@ran {NOW_S}\n',
    "unattended-log": LOG,
    "keys": answer_of(("/etc/apt/keyrings/k.gpg", bytes(range(128, 255)))),
    "kernel": kernel(installed=["6.12.50+deb13-amd64"]) + f"noted_s={NOW_S}\nnote=/run/x\n",
    "services": fixture("needrestart-b_kernel-pending.txt"),
}
