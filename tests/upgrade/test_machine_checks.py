"""Both sides of every threshold of the checks that look at machines."""

from __future__ import annotations

import base64
import dataclasses
import json
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from opsd.hosts.health import clock
from opsd.hosts.machine import Machine, Role
from opsd.hosts.script import Section
from opsd.upgrade.check import Hop, Status, judged
from opsd.upgrade.checks import CHECKS
from opsd.upgrade.facts import Facts, MachineFacts
from opsd.upgrade.reading import Reading
from opsd.upgrade.version import Minor, Version

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
HOP = Hop(start=Minor(1, 35), target=Minor(1, 36))
BY_ID = {check.id: check for check in CHECKS}
MIB, GIB = 1 << 20, 1 << 30
AUTHORITY = trustme.CA()
MANIFESTS = "/etc/kubernetes/manifests"
ETCD_POD = f"{MANIFESTS}/etcd.yaml:metadata: {{name: etcd, labels: {{component: etcd}}}}\n"
PASS, WARN, UNKNOWN, FAIL = Status.PASS, Status.WARN, Status.UNKNOWN, Status.FAIL


def facts_of(answers: Mapping[str, str], *, control_plane: bool = True, **more: object) -> Facts:
    """A cluster of one machine that gave these answers."""
    roles = {Role.NODE, *((Role.CONTROL_PLANE,) if control_plane else ())}
    machine = MachineFacts(
        machine=Machine(name="a", address="", roles=frozenset(roles)),
        sections={
            name: Section(name=name, stdout=text, stderr="", status=0)
            for name, text in answers.items()
        },
        clock_offset_s=0.0,
    )
    facts = Facts(at=NOW, server=Version(1, 35, 4), machines=Reading.of((machine,)))
    return dataclasses.replace(facts, **more)  # type: ignore[arg-type]


def status(check: str, facts: Facts, hop: Hop = HOP) -> Status:
    return judged(BY_ID[check], facts, hop).status


def pem(left: timedelta, *, life: timedelta = timedelta(days=365)) -> str:
    end = NOW + left
    leaf = AUTHORITY.issue_cert("x", common_name="x", not_before=end - life, not_after=end)
    return leaf.cert_chain_pems[0].bytes().decode()


def listed(path: str, text: str) -> str:
    return "".join(f"{path}:{line}\n" for line in text.splitlines())


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (timedelta(days=30), PASS),
        (timedelta(days=30, seconds=-1), WARN),
        (timedelta(days=7), WARN),
        (timedelta(days=7, seconds=-1), FAIL),
        (timedelta(days=-1), FAIL),
        (timedelta(days=366), FAIL),  # it is not in force yet
    ],
)
def test_certificates_fail_in_their_last_week_and_warn_in_their_last_month(
    left: timedelta, expected: Status
) -> None:
    folder = listed("/etc/kubernetes/pki/apiserver.crt", pem(left))
    answers = {"certificates-folder": folder, "certificates-kubeconfigs": ""}

    assert status("certificates", facts_of(answers)) is expected


def test_the_certificate_in_a_kubeconfig_counts_but_not_that_of_the_kubelet() -> None:
    good = listed("/etc/kubernetes/pki/apiserver.crt", pem(timedelta(days=300)))
    ending = base64.b64encode(pem(timedelta(days=6)).encode()).decode()

    def answers(name: str) -> dict[str, str]:
        config = f"/etc/kubernetes/{name}.conf:    client-certificate-data: {ending}\n"
        return {"certificates-folder": good, "certificates-kubeconfigs": config}

    assert status("certificates", facts_of(answers("admin"))) is FAIL
    assert status("certificates", facts_of(answers("kubelet"))) is PASS


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (timedelta(days=73), PASS),
        (timedelta(days=73, seconds=-1), WARN),
        (timedelta(days=3), WARN),
        (timedelta(days=3, seconds=-1), FAIL),
    ],
)
def test_a_kubelet_should_have_renewed_before_the_last_fifth(
    left: timedelta, expected: Status
) -> None:
    answers = {"certificates-kubelet": pem(left), "certificates-kubeconfigs": ""}

    assert status("kubelet-certificate", facts_of(answers)) is expected


def etcd_answers(**changes: float) -> dict[str, str]:
    numbers = {
        "etcd_server_has_leader": 1.0,
        "etcd_server_is_learner": 0,
        "etcd_mvcc_db_total_size_in_bytes": 100 * MIB,
        "etcd_mvcc_db_total_size_in_use_in_bytes": 90 * MIB,
        "etcd_server_quota_backend_bytes": 1000 * MIB,
        'etcd_cluster_version{cluster_version="3.6"}': 1,
        'etcd_server_version{server_version="3.6.6"}': 1,
        **changes,
    }
    lines = "".join(f"{name} {value}\n" for name, value in numbers.items())
    return {
        "static-manifests": ETCD_POD,
        "etcd-health": '{"health":"true","reason":""}',
        "etcd-metrics": lines,
    }


SIZE, USED = "etcd_mvcc_db_total_size_in_bytes", "etcd_mvcc_db_total_size_in_use_in_bytes"
SLOW = 'etcd_disk_wal_fsync_duration_seconds_bucket{le="%s"}'
PEERS = 'etcd_network_%s_peers{Local="1",Remote="2"}'


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, PASS),
        ({SIZE: 600 * MIB, USED: 600 * MIB}, PASS),
        ({SIZE: 601 * MIB, USED: 600 * MIB}, WARN),
        ({SIZE: 200 * MIB, USED: 100 * MIB}, PASS),
        ({SIZE: 200 * MIB, USED: 99 * MIB}, WARN),
        ({SIZE: 99 * MIB, USED: 1 * MIB}, PASS),  # nothing is gained by defragmenting it
        ({"etcd_server_has_leader": 0}, FAIL),
        ({"etcd_server_is_learner": 1}, FAIL),
        ({PEERS % "known": 1, PEERS % "active": 1}, PASS),
        ({PEERS % "known": 1, PEERS % "active": 0}, FAIL),
        ({SLOW % "0.016": 990, SLOW % "+Inf": 1000}, PASS),
        ({SLOW % "0.016": 980, SLOW % "0.032": 1000, SLOW % "+Inf": 1000}, WARN),
        ({'etcd_cluster_version{cluster_version="3.6"}': 1, SIZE: 100 * MIB}, PASS),
    ],
)
def test_etcd_is_judged_by_what_it_says_of_itself(
    changes: dict[str, float], expected: Status
) -> None:
    assert status("etcd-health", facts_of(etcd_answers(**changes))) is expected


def test_an_etcd_whose_members_were_not_all_upgraded_is_told() -> None:
    answers = etcd_answers()
    answers["etcd-metrics"] = answers["etcd-metrics"].replace('"3.6"', '"3.5"')

    assert status("etcd-health", facts_of(answers)) is WARN


def test_an_etcd_that_runs_elsewhere_is_not_asked() -> None:
    answers = {"static-manifests": f"{MANIFESTS}/x.yaml:kind: Pod\n"}

    assert status("etcd-health", facts_of(answers)) is Status.SKIPPED


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (timedelta(0), PASS),
        (timedelta(hours=24), PASS),
        (timedelta(hours=24, seconds=1), FAIL),
        (timedelta(minutes=-5), PASS),
        (timedelta(minutes=-5, seconds=-1), UNKNOWN),
    ],
)
def test_a_snapshot_of_etcd_counts_for_a_day(age: timedelta, expected: Status) -> None:
    made = {"etcd/main": NOW - age, "database/main/app": NOW}

    assert status("etcd-snapshot", facts_of({}, backups=Reading.of(made))) is expected


def test_without_a_snapshot_nothing_may_begin_nor_when_nobody_can_look() -> None:
    none = facts_of({}, backups=Reading.of({"database/main/app": NOW}))
    unread = facts_of({}, backups=Reading.failed("repository usb", "it is away"))

    results = [judged(BY_ID["etcd-snapshot"], facts, HOP) for facts in (none, unread)]

    assert [result.status for result in results] == [FAIL, UNKNOWN]
    assert all(result.blocks for result in results)


def space(path: str, free_bytes: int, size_bytes: int = 100 * GIB) -> str:
    used = size_bytes - free_bytes
    return f"{path} /dev/sda1 {size_bytes >> 10} {used >> 10} {free_bytes >> 10} 1% /x\n"


@pytest.mark.parametrize(
    ("path", "free_bytes", "folders", "expected"),
    [
        ("/var/lib/containerd", 15 * GIB, "", PASS),
        ("/var/lib/containerd", 15 * GIB - MIB, "", FAIL),
        ("/boot/firmware", 50 * MIB, "", PASS),
        ("/boot/firmware", 49 * MIB, "", WARN),
        ("/etc/kubernetes", 2 * GIB, f"{GIB >> 10}\t/var/lib/etcd\n", PASS),
        ("/etc/kubernetes", 2 * GIB - MIB, f"{GIB >> 10}\t/var/lib/etcd\n", FAIL),
        ("/etc/kubernetes", 9 * GIB, f"{GIB >> 10}\t/etc/kubernetes/tmp\n", PASS),
        ("/etc/kubernetes", 9 * GIB, f"{(GIB >> 10) + 1}\t/etc/kubernetes/tmp\n", WARN),
    ],
)
def test_there_must_be_room_for_what_an_upgrade_writes(
    path: str, free_bytes: int, folders: str, expected: Status
) -> None:
    lines = {one: space(one, 50 * GIB) for one in ("/", "/etc/kubernetes")}
    lines[path] = space(path, free_bytes)
    answers = {"disk-space": "".join(lines.values()), "disk-folders": folders}

    assert status("disk-space", facts_of(answers)) is expected


@pytest.mark.parametrize(
    ("offset_s", "synced", "control_plane", "expected"),
    [
        (0.0, "yes", True, PASS),
        (2.0, "yes", True, PASS),
        (2.1, "yes", True, WARN),
        (-5.0, "yes", True, WARN),
        (-5.1, "yes", True, FAIL),
        (0.0, "no", True, FAIL),
        (0.0, "no", False, WARN),
        (0.0, "", True, WARN),
    ],
)
def test_clocks_must_be_right_and_kept_right(
    *,
    offset_s: float,
    synced: str,
    control_plane: bool,
    expected: Status,
) -> None:
    facts = facts_of({clock.PROBE: f"systemd={synced}\n"}, control_plane=control_plane)
    (machine,) = facts.machines.value
    there = dataclasses.replace(machine, clock_offset_s=offset_s)

    found = status("clock", dataclasses.replace(facts, machines=Reading.of((there,))))

    assert found is expected


def policy(installed: str, candidate: str) -> dict[str, str]:
    return {
        "upgrade-policy": f"kubeadm:\n  Installed: {installed}\n  Candidate: {candidate}\n"
        "  Version table:\n"
    }


@pytest.mark.parametrize(
    ("installed", "candidate", "expected"),
    [
        ("1.35.9-1.1", "1.35.9-1.1", PASS),
        ("1.35.9-1.1", "1.35.10-1.1", PASS),
        ("1.35.9-1.1", "1.35.11-1.1", WARN),
        ("1.35.9-1.1", "1.36.1-1.1", WARN),
        ("1.35.9-1.1", "1.37.1-1.1", FAIL),
        ("(none)", "1.37.1-1.1", Status.SKIPPED),
        ("1.35.9-1.1", "(none)", UNKNOWN),
    ],
)
def test_the_repository_should_offer_the_newest_patch_of_the_minor_that_runs(
    installed: str, candidate: str, expected: Status
) -> None:
    assert status("newest-patch", facts_of(policy(installed, candidate))) is expected


def packages(*lines: str, fetched_days: float = 1) -> dict[str, str]:
    now = int(NOW.timestamp())
    fetched = int(now - fetched_days * 86400)
    return {
        "dpkg": "\n".join([*lines, "@packages=200"]),
        "lists": f"@now {now}\n@stamp {fetched} /var/lib/apt/lists\n@packages\n",
        "keys": "",
    }


LOCK = ("@lock=/var/lib/dpkg/lock", "@lock_pid=7", "@lock_name=apt-get")


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (packages("hi |kubeadm|1.35.9-1.1|amd64", "hi |kubelet|1.35.9-1.1|amd64"), PASS),
        (packages("hi |kubeadm|1.35.9-1.1|amd64", "ii |kubelet|1.35.9-1.1|amd64"), WARN),
        (packages("hi |kubeadm|1.36.1-1.1|amd64", "hi |kubelet|1.35.9-1.1|amd64"), WARN),
        (packages("iF |libc6|2.36|amd64"), FAIL),
        (packages("@interrupted=yes"), FAIL),
        (packages(*LOCK, "@lock_s=600"), WARN),
        (packages(*LOCK, "@lock_s=601"), FAIL),
        (packages(fetched_days=7), PASS),
        (packages(fetched_days=7.01), WARN),
        ({**packages(), "lists": f"@now {int(NOW.timestamp())}\n"}, UNKNOWN),
        ({**packages(), "dpkg": ""}, UNKNOWN),
    ],
)
def test_packages_must_be_whole_and_held_and_known(
    answers: dict[str, str], expected: Status
) -> None:
    assert status("packages", facts_of(answers)) is expected


@pytest.mark.parametrize(
    ("kind", "config", "target", "expected"),
    [
        ("cgroup2fs", "", Minor(1, 38), PASS),
        ("tmpfs", "", Minor(1, 34), WARN),
        ("tmpfs", "", Minor(1, 35), FAIL),
        ("tmpfs", "failCgroupV1: false", Minor(1, 37), WARN),
        ("tmpfs", "failCgroupV1: false", Minor(1, 38), FAIL),
        ("sysfs", "", Minor(1, 35), UNKNOWN),
    ],
)
def test_cgroup_v1_is_refused_from_its_releases_on(
    kind: str, config: str, target: Minor, expected: Status
) -> None:
    files = f"/var/lib/kubelet/config.yaml:kind: X\n/var/lib/kubelet/config.yaml:{config}\n"
    answers = {"cgroup": f"{kind}\n", "kubelet-files": files}

    assert status("cgroup-version", facts_of(answers), Hop(start=HOP.start, target=target)) is (
        expected
    )


@pytest.mark.parametrize("check", [one.id for one in CHECKS if one.probes])
def test_no_check_passes_over_a_machine_that_was_not_read(check: str) -> None:
    silent = facts_of({}, nodes=Reading.of(()), config_maps=Reading.of({}))

    found = judged(BY_ID[check], silent, HOP)

    assert found.status in (UNKNOWN, WARN, FAIL), found.notes


def test_what_could_not_be_read_is_not_mended_as_what_is_wrong_would_be() -> None:
    silent = judged(BY_ID["swap"], facts_of({}), HOP)
    swap = {
        "swap": "Filename\n/dev/sda2 partition 1024 0 1\n",
        "kubelet-files": "/var/lib/kubelet/config.yaml:kind: X\n",
    }
    wrong = judged(BY_ID["swap"], facts_of(swap), HOP)

    assert silent.fix == "opsd nodes check a"
    assert "swapoff" in wrong.fix


@pytest.mark.parametrize(
    ("flag", "target", "expected"),
    [
        ("--v=2", Minor(1, 37), PASS),
        ("--machine-id-file=/x", Minor(1, 36), PASS),
        ("--machine-id-file=/x", Minor(1, 37), FAIL),
        ("--machine_id_file /x", Minor(1, 37), FAIL),
        ("--containerd=/run/c.sock", Minor(1, 37), FAIL),
        ("--container-runtime-endpoint=/x", Minor(1, 37), PASS),
        ("--pod-infra-container-image=x", Minor(1, 37), FAIL),  # gone before
        ("--config-dir=/x", Minor(1, 36), UNKNOWN),
        ("--v=2", Minor(1, 99), UNKNOWN),
    ],
)
@pytest.mark.parametrize("place", ["kubelet-unit", "kubelet-running"])
def test_flags_that_are_gone_are_found_wherever_they_stand(
    flag: str, target: Minor, expected: Status, place: str
) -> None:
    lines = {
        "kubelet-unit": f"/etc/default/kubelet:KUBELET_EXTRA_ARGS={shlex.quote(flag)}\n",
        "kubelet-running": "/usr/bin/kubelet\n" + flag.replace(" ", "\n") + "\n",
    }
    answers = dict.fromkeys(lines, "") | {place: lines[place]}
    answers["kubelet-files"] = "/var/lib/kubelet/config.yaml:kind: X\n"

    found = status("kubelet-flags", facts_of(answers), Hop(start=HOP.start, target=target))

    assert found is expected


@pytest.mark.parametrize("reason", ["ALARM NOSPACE", ""])
def test_an_etcd_that_says_it_is_not_well_is_not(reason: str) -> None:
    answers = etcd_answers() | {"etcd-health": f'{{"health":"false","reason":"{reason}"}}'}

    found = judged(BY_ID["etcd-health"], facts_of(answers), HOP)

    assert found.status is FAIL
    assert [note.value for note in found.worst] == [reason or "it says that it is not well"]


@pytest.mark.parametrize(
    ("gates", "flags", "target", "expected"),
    [
        ("{}", "", Minor(1, 37), PASS),
        ("{SidecarContainers: true}", "", Minor(1, 36), PASS),
        ("{SidecarContainers: true}", "", Minor(1, 37), FAIL),
        ("{KubeletPSI: true}", "", Minor(1, 36), PASS),
        ("{KubeletPSI: false}", "", Minor(1, 36), FAIL),
        ("{}", "--feature-gates=KubeletPSI=false", Minor(1, 36), FAIL),
        ("{}", "--feature-gates=KubeletPSI=true", Minor(1, 36), PASS),
        ("{}", "--other=KubeletPSI=false", Minor(1, 36), PASS),
        ("{NodeSwap: true}", "", Minor(1, 37), PASS),
        ("{NodeSwap: true}", "", Minor(1, 38), UNKNOWN),
    ],
)
def test_gates_that_the_next_kubelet_refuses_are_found(
    gates: str, flags: str, target: Minor, expected: Status
) -> None:
    answers = {
        "kubelet-files": f"/var/lib/kubelet/config.yaml:featureGates: {gates}\n",
        "kubelet-unit": f"/etc/default/kubelet:KUBELET_EXTRA_ARGS={flags}\n",
        "kubelet-running": "",
    }

    found = status("kubelet-gates", facts_of(answers), Hop(start=HOP.start, target=target))

    assert found is expected


@pytest.mark.parametrize(
    ("swaps", "config", "expected"),
    [
        ("", "kind: X", PASS),
        ("/dev/sda2 partition 1024 0 1", "kind: X", FAIL),
        ("/dev/sda2 partition 1024 0 1", "failSwapOn: true", FAIL),
        ("/dev/sda2 partition 1024 0 1", "failSwapOn: false", PASS),
    ],
)
def test_swap_must_be_what_the_kubelet_allows(swaps: str, config: str, expected: Status) -> None:
    answers = {
        "swap": f"Filename Type Size Used Priority\n{swaps}\n",
        "kubelet-files": f"/var/lib/kubelet/config.yaml:{config}\n",
    }

    assert status("swap", facts_of(answers)) is expected


CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")


@pytest.mark.parametrize(
    ("tags", "control_plane", "expected"),
    [
        ({"kube-proxy": "v1.36.4"}, False, PASS),
        ({"kube-proxy": "v1.36.4"}, True, WARN),
        ({"kube-proxy": "v1.36.4"} | dict.fromkeys(CONTROL_PLANE, "v1.36.1"), True, PASS),
        ({"kube-proxy": "v1.35.4"}, False, WARN),
        ({"my-kube-proxy": "v1.36.4"}, False, WARN),
        ({"kube-proxy": "latest"}, False, WARN),
        ({}, False, WARN),
    ],
)
def test_the_images_of_the_target_are_looked_for(
    tags: dict[str, str], expected: Status, *, control_plane: bool
) -> None:
    listed_ = [{"repoTags": [f"registry.k8s.io/{name}:{tag}"]} for name, tag in tags.items()]
    facts = facts_of({"images": json.dumps({"images": listed_})}, control_plane=control_plane)

    assert status("images", facts) is expected


def test_images_are_no_matter_of_a_later_hop_nor_of_an_unknown_release() -> None:
    facts = facts_of({"images": '{"images": []}'})
    later = Hop(start=Minor(1, 36), target=Minor(1, 37), is_first=False)
    strange = Hop(start=Minor(1, 98), target=Minor(1, 99))

    assert status("images", facts, later) is Status.SKIPPED
    assert status("images", facts, strange) is UNKNOWN


def test_a_control_plane_without_its_folder_is_unknown_and_a_worker_needs_none() -> None:
    answers = {"disk-space": space("/", 50 * GIB), "disk-folders": ""}

    assert status("disk-space", facts_of(answers)) is UNKNOWN
    assert status("disk-space", facts_of(answers, control_plane=False)) is PASS


def test_lists_of_which_nobody_noted_when_they_were_fetched_are_unknown() -> None:
    answers = packages() | {"lists": f"@now {int(NOW.timestamp())}\n@packages\n"}

    assert status("packages", facts_of(answers)) is UNKNOWN


def test_a_key_of_a_repository_that_cannot_be_read_is_unknown() -> None:
    answers = packages() | {"keys": "@key /etc/apt/keyrings/kubernetes.gpg\n@unreadable\n"}

    assert status("packages", facts_of(answers)) is UNKNOWN
