"""Lines of the kernel that mean something; the examples are lines of real kernels."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from opsd.hosts.health import kernellog
from opsd.hosts.health.kernellog import KINDS, PART, PROBE
from opsd.hosts.health.look import Answer, Boot, Unreadable
from opsd.hosts.script import Section
from opsd.testing import START
from tests.rig.checkups import SHELLS, UPTIME_S, Tree, judged

FIRST = "first [    0.000000] Linux version 6.12.47+rpt-rpi-v8\n"
NOW_S = UPTIME_S
WITHOUT_DMESG = [shell for shell in SHELLS if shell != "busybox"]  # that one has its own
EXAMPLES = {
    "io": [
        "blk_update_request: I/O error, dev mmcblk0, sector 2048 op 0x0:(READ) flags 0x0",
        "I/O error, dev sda, sector 12345 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 2",
        "Buffer I/O error on dev mmcblk0p2, logical block 1234, lost async page write",
        "Buffer I/O error on device sdb1, logical block 0",
        "mmc0: Timeout waiting for hardware interrupt.",
        "mmc0: error -110 sending status command, retrying",
        "ata1.00: failed command: READ FPDMA QUEUED",
        "ata3.00: exception Emask 0x0 SAct 0x0 SErr 0x0 action 0x6 frozen",
        "nvme nvme0: I/O 512 QID 3 timeout, aborting",
        "nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0x10",
        "sd 0:0:0:0: [sda] tag#11 uas_eh_abort_handler 0 uas-tag 12 inflight: CMD OUT",
        "critical medium error, dev sda, sector 99 op 0x0:(READ)",
    ],
    "filesystem": [
        "EXT4-fs error (device mmcblk0p2): ext4_find_entry:1463: inode #2: comm systemd: reading",
        "EXT4-fs (mmcblk0p2): Remounting filesystem read-only",
        "Aborting journal on device sda1-8.",
        "XFS (sdb1): Corruption detected. Unmount and run xfs_repair",
        "XFS (dm-0): Filesystem has been shut down due to log error (0x2).",
        "BTRFS error (device sda1): bdev /dev/sda1 errs: wr 0, rd 1, flush 0, corrupt 0, gen 0",
        "BTRFS: error (device sda) in btrfs_commit_transaction:2271: errno=-5 IO failure",
        "FAT-fs (mmcblk0p1): error, fat_get_cluster: invalid cluster chain (i_pos 0)",
    ],
    "oom": [
        "Out of memory: Killed process 4711 (postgres) total-vm:812345kB, anon-rss:412345kB",
        "Out of memory: Kill process 1 (java) score 900 or sacrifice child",
    ],
    "hung": ["INFO: task jbd2/mmcblk0p2-8:123 blocked for more than 120 seconds."],
    "lockup": [
        "watchdog: BUG: soft lockup - CPU#1 stuck for 23s! [kworker/1:2:123]",
        "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
        "rcu: INFO: rcu_preempt self-detected stall on CPU",
        "BUG: unable to handle page fault for address: ffffffffc0",
        "Internal error: Oops: 0000000096000004 [#1] PREEMPT SMP",
    ],
    "hardware": [
        "mce: [Hardware Error]: Machine check events logged",
        "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_Ha#0_Chan#0_DIMM#0",
    ],
    "undervoltage": [
        "hwmon hwmon1: Undervoltage detected!",
        "Under-voltage detected! (0x00050005)",
    ],
    "network": [
        "NETDEV WATCHDOG: eth0 (bcmgenet): transmit queue 1 timed out",
        "nf_conntrack: nf_conntrack: table full, dropping packet",
        "neighbour: arp_cache: neighbor table overflow!",
    ],
}
HARMLESS = [
    "EXT4-fs (mmcblk0p2): mounted filesystem with ordered data mode. Quota mode: none.",
    "EXT4-fs (sda1): recovery complete",
    "Memory cgroup out of memory: Killed process 812 (java) total-vm:1kB, anon-rss:1kB",
    "mmc1: error -110 whilst initialising SDIO card",
    "I/O error, dev sr0, sector 0 op 0x0:(READ)",
    "I/O error, dev fd0, sector 0 op 0x0:(READ)",
    "XFS (sda1): Unmounting Filesystem",
    "XFS (sda1): Ending clean mount",
    "nfs: server 10.0.0.5 not responding, still trying",
    "python[26507]: segfault at 20 ip 00007efddae7410a sp 00007efdcbffe900 error 4",
    "audit: type=1400 apparmor=DENIED",
    "r8169 0000:01:00.0 eth0: Link is Up - 1Gbps/Full - flow control rx/tx",
    "usb 1-1: new high-speed USB device number 2 using xhci_hcd",
]


def log(*lines: tuple[float, str], first: str = FIRST) -> str:
    return first + "".join(f"[{at_s:12.6f}] {text}\n" for at_s, text in lines)


def look(text: str, before: Answer | None = None, **about: object) -> Answer:
    return judged(PART, {PROBE: text}, kept=before.kept if before else {}, **about)


def told(answer: Answer) -> dict[str, int]:
    return {
        one.subject.removeprefix("machine/rpi3/kernel/"): int(str(one.facts["lines_within_a_day"]))
        for one in answer.findings
    }


@pytest.mark.parametrize(
    ("kind", "line"), [(kind, line) for kind, lines in EXAMPLES.items() for line in lines]
)
def test_a_line_that_means_something_is_told_as_what_it_means(kind: str, line: str) -> None:
    assert told(look(log((NOW_S - 60, line)))) == {kind: 1}


@pytest.mark.parametrize("line", HARMLESS)
def test_a_line_that_means_nothing_is_not_told(line: str) -> None:
    assert told(look(log((NOW_S - 60, line)))) == {}


def test_every_kind_has_examples() -> None:
    assert {kind.name for kind in KINDS} == set(EXAMPLES)


def test_grep_on_the_machine_picks_the_same_lines() -> None:
    wanted = [line for lines in EXAMPLES.values() for line in lines]
    pattern = "|".join(kind.pattern for kind in KINDS)

    picked = subprocess.run(
        ["grep", "-E", pattern],
        input="\n".join(wanted + HARMLESS),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()

    assert [line for line in picked if "whilst" not in line] == wanted


def test_a_line_is_counted_once_however_often_it_is_read() -> None:
    text = log((NOW_S - 60, "Buffer I/O error on dev sda1, logical block 0"))
    first = look(text)

    second = look(text, first)
    third = look(
        text + f"[{NOW_S - 5:12.6f}] Buffer I/O error on dev sda1, logical block 9\n", second
    )

    assert [told(one) for one in (first, second, third)] == [{"io": 1}, {"io": 1}, {"io": 2}]


@pytest.mark.parametrize(("hours", "expected"), [(23, {"io": 1}), (26, {})])
def test_a_line_is_told_for_a_day(hours: int, expected: dict[str, int]) -> None:
    first = look(log((NOW_S - 60, "Buffer I/O error on dev sda1, logical block 0")))

    later = look(
        log(),
        first,
        at=START + timedelta(hours=hours),
        boot=Boot(id="b1", uptime_s=NOW_S + hours * 3600),
    )

    assert told(later) == expected


def test_lines_older_than_a_day_are_none_at_the_first_look_either() -> None:
    old = log((60.0, "Buffer I/O error on dev sda1, logical block 0"))

    answer = look(old, boot=Boot(id="b1", uptime_s=90_000.0 + 3600))

    assert told(answer) == {}


def test_a_restart_repeats_nothing_and_forgets_nothing() -> None:
    first = look(log((NOW_S - 60, "Buffer I/O error on dev sda1, logical block 0")))

    restarted = look(
        log((10.0, "EXT4-fs error (device sda1): ext4_find_entry:1: reading")),
        first,
        is_same_boot=False,
        boot=Boot(id="b2", uptime_s=60.0),
        at=START + timedelta(minutes=15),
    )

    assert told(restarted) == {"io": 1, "filesystem": 1}


def test_what_the_kernel_has_overwritten_is_unknown() -> None:
    first = look(log())

    flooded = look(
        log(first=f"first [{NOW_S + 300:12.6f}] noise\n"),
        first,
        boot=Boot(id="b1", uptime_s=NOW_S + 900),
    )

    assert "during 5 minutes" in flooded.unknown[0].why


def test_a_long_uptime_without_an_earlier_look_is_not_unknown() -> None:
    answer = look(log(first="first [40000.000000] noise\n"))

    assert answer.unknown == ()


@pytest.mark.parametrize(
    ("last", "cause"),
    [("not responding, still trying", "nfs/10.0.0.5"), ("OK", "")],
)
def test_a_task_that_hangs_on_a_silent_file_server_follows_from_it(last: str, cause: str) -> None:
    text = log(
        (NOW_S - 90, "nfs: server 10.0.0.5 not responding, still trying"),
        (NOW_S - 60, EXAMPLES["hung"][0]),
        (NOW_S - 50, f"nfs: server 10.0.0.5 {last}"),
    )

    (finding,) = look(text).findings

    assert finding.cause == cause


def test_devices_and_the_last_line_are_the_evidence() -> None:
    (finding,) = look(log((NOW_S - 60, "I/O error, dev mmcblk0, sector 1"))).findings

    assert finding.facts["devices"] == "mmcblk0"
    assert finding.facts["line"] == "I/O error, dev mmcblk0, sector 1"
    assert finding.facts["last_min_ago"] == 1


@pytest.mark.parametrize(
    "line",
    [
        "<3>[49990.000000] I/O error, dev sda, sector 1",
        "[49990.000000] rpi3 kernel: I/O error, dev sda, sector 1",
        "[49990.000000] [    T1] I/O error, dev sda, sector 1",
    ],
)
def test_lines_of_every_origin_are_read(line: str) -> None:
    assert told(look(f"{FIRST}{line}\n")) == {"io": 1}


@pytest.mark.parametrize("text", ["", "first \n", "first no time here\n"])
def test_a_log_that_says_nothing_is_unknown_and_not_quiet(text: str) -> None:
    with pytest.raises(Unreadable):
        look(text)


def test_a_log_that_may_not_be_read_is_unknown_with_the_right_that_is_missing() -> None:
    refused = Section(
        name=PROBE, stdout="first \n", stderr="sudo: a password is required\n", status=0
    )

    with pytest.raises(Unreadable) as caught:
        judged(PART, {PROBE: refused})

    assert "sudo: a password is required" in caught.value.unknown.why
    assert "dmesg" in caught.value.unknown.fix


class TestTheScript:
    """With programs in the place of dmesg, sudo and journalctl."""

    @pytest.fixture
    def tree(self, tmp_path: Path) -> Tree:
        return Tree(tmp_path)

    def prints(self, line: str) -> str:
        return f"echo '[ 1.0] boot'; echo '[49990.0] {line}'; echo '[49991.0] nothing'"

    @pytest.mark.parametrize("shell", WITHOUT_DMESG)
    def test_dmesg_is_read_where_everybody_may(self, tree: Tree, shell: str) -> None:
        tree.program("dmesg", self.prints("I/O error, dev sda, sector 1"))

        assert told(tree.judged(PART, shell=shell)) == {"io": 1}

    @pytest.mark.parametrize("shell", WITHOUT_DMESG)
    def test_the_journal_is_read_where_only_that_is_allowed(self, tree: Tree, shell: str) -> None:
        tree.program("dmesg", "echo 'dmesg: Operation not permitted' >&2; exit 1")
        tree.program("journalctl", self.prints("rpi3 kernel: I/O error, dev sda, sector 1"))

        assert told(tree.judged(PART, shell=shell)) == {"io": 1}

    def test_no_more_lines_come_home_than_wanted(self, tree: Tree) -> None:
        many = 'i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo "[ $i.5] I/O error, dev sda"; done'
        tree.program("dmesg", many)

        text = tree.ask(PART)[PROBE].stdout

        assert len(text.splitlines()) == kernellog._LINES + 1
