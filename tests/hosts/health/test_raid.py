"""RAID of the kernel, ZFS and btrfs.

There is no RAID here: the texts follow the formats that the kernel and zpool document.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from opsd.hosts.health import pools, raid
from opsd.hosts.health.look import Answer
from opsd.hosts.script import Section
from opsd.model import Severity
from opsd.testing import START
from tests.rig.checkups import SHELLS, Tree, judged

WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL
HEALTHY = """\
Personalities : [raid1] [raid6] [raid5] [raid4] [raid0]
md0 : active raid1 sdb1[1] sda1[0]
      1953382400 blocks super 1.2 [2/2] [UU]
      bitmap: 0/15 pages [0KB], 65536KB chunk

md2 : active raid0 sdd1[1] sdc1[0]
      1953382400 blocks super 1.2 512k chunks

unused devices: <none>
"""
DEGRADED = HEALTHY.replace("sda1[0]", "sda1[0](F)").replace("[2/2] [UU]", "[2/1] [_U]")
REBUILDING = DEGRADED.replace(
    "      bitmap",
    "      [==>..................]  recovery = 12.6% (37043392/292945152) finish=127.5min "
    "speed=33440K/sec\n      bitmap",
)
CHECKING = HEALTHY.replace(
    "      bitmap",
    "      [===>.......]  check = 31.2% (1/3) finish=60.0min speed=1K/sec\n      bitmap",
)
INACTIVE = "Personalities : [raid1]\nmd1 : inactive sdc1[0](S)\n      976630464 blocks super 1.2\n"
CONTAINER = """\
md126 : active raid1 sda[1] sdb[0]
      244195328 blocks super external:/md127/0 [2/2] [UU]

md127 : inactive sdb[1](S) sda[0](S)
      5288 blocks super external:imsm
"""


def told(answer: Answer) -> list[tuple[str, Severity]]:
    return [(one.subject.removeprefix("machine/rpi3/"), one.severity) for one in answer.findings]


class TestMd:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (HEALTHY, []),
            (CHECKING, []),
            (DEGRADED, [("raid/md0", CRITICAL)]),
            (REBUILDING, [("raid/md0", CRITICAL)]),
            (INACTIVE, [("raid/md1", CRITICAL)]),
            (HEALTHY.replace("sda1[0]", "sda1[0](F)"), [("raid/md0", CRITICAL)]),
            (HEALTHY.replace("sda1[0]", "sda1[0] sdx1[2](S)"), []),
            (CONTAINER, []),
            ("Personalities : \nunused devices: <none>\n", []),
        ],
    )
    def test_an_array_that_lost_a_disk_is_told(
        self, text: str, expected: list[tuple[str, Severity]]
    ) -> None:
        assert told(judged(raid.PART, {raid.PROBE: text})) == expected

    def test_a_rebuild_says_how_long_it_takes(self) -> None:
        (finding,) = judged(raid.PART, {raid.PROBE: REBUILDING}).findings

        assert finding.summary.endswith("runs on 1 of 2 disks; recovery 12.6 %, 127.5 min left")

    @pytest.mark.parametrize("shell", SHELLS)
    def test_a_machine_without_raid_has_nothing_to_say(self, tmp_path: Path, shell: str) -> None:
        answer = Tree(tmp_path).judged(raid.PART, shell=shell)

        assert (answer.facts, answer.unknown) == ({}, ())

    @pytest.mark.parametrize("shell", SHELLS)
    def test_the_file_of_the_kernel_is_read(self, tmp_path: Path, shell: str) -> None:
        tree = Tree(tmp_path)
        tree.write("proc/mdstat", DEGRADED)

        assert told(tree.judged(raid.PART, shell=shell)) == [("raid/md0", CRITICAL)]


STATUS = """\
  pool: tank
 state: ONLINE
  scan: scrub repaired 0B in 02:11:30 with 0 errors on Sun Nov  8 02:35:31 2026
config:

\tNAME        STATE     READ WRITE CKSUM
\ttank        ONLINE       0     0     0
\t  mirror-0  ONLINE       0     0     0

errors: No known data errors
"""


class TestZfs:
    @pytest.fixture
    def tree(self, tmp_path: Path) -> Tree:
        tree = Tree(tmp_path)
        tree.files("proc/spl/kstat/zfs/tank", {"state": "ONLINE"})
        tree.write("status", STATUS)
        tree.program("zpool", f"cat {tmp_path}/status")
        return tree

    @pytest.mark.parametrize("shell", SHELLS)
    def test_a_healthy_pool_is_stated(self, tree: Tree, shell: str) -> None:
        answer = tree.judged(pools.PART, shell=shell)

        assert (told(answer), answer.unknown) == ([], ())
        assert answer.facts == {"pool_tank": "ONLINE"}

    @pytest.mark.parametrize("state", ["DEGRADED", "FAULTED", "SUSPENDED"])
    def test_a_pool_that_is_not_online_is_told(self, tree: Tree, state: str) -> None:
        tree.files("proc/spl/kstat/zfs/tank", {"state": state})

        assert told(tree.judged(pools.PART)) == [("pool/tank", CRITICAL)]

    def test_files_that_are_lost_are_told(self, tree: Tree) -> None:
        tree.write("status", STATUS.replace("No known data errors", "3 data errors, use '-v'"))

        assert told(tree.judged(pools.PART)) == [("pool/tank", CRITICAL)]

    @pytest.mark.parametrize(("days", "expected"), [(40, []), (41, [("pool/tank", WARNING)])])
    def test_a_scrub_that_is_overdue_is_told(
        self, tree: Tree, days: int, expected: list[tuple[str, Severity]]
    ) -> None:
        at = (START - timedelta(days=days)).strftime("%a %b %e %H:%M:%S %Y")
        tree.write("status", STATUS.replace("Sun Nov  8 02:35:31 2026", at))

        assert told(tree.judged(pools.PART)) == expected

    def test_a_pool_that_was_never_scrubbed_is_told(self, tree: Tree) -> None:
        without = "".join(line for line in STATUS.splitlines(keepends=True) if "scan:" not in line)
        tree.write("status", without)

        assert told(tree.judged(pools.PART)) == [("pool/tank", WARNING)]

    def test_a_scrub_under_way_is_no_finding(self, tree: Tree) -> None:
        under_way = "scan: scrub in progress since Sun Nov 22 02:00:01 2026\n"
        tree.write("status", STATUS.replace(STATUS.splitlines(keepends=True)[2], under_way))

        assert told(tree.judged(pools.PART)) == []

    def test_without_zpool_the_state_is_known_and_the_rest_unknown(self, tree: Tree) -> None:
        (tree.root / "bin/zpool").unlink()
        tree.files("proc/spl/kstat/zfs/tank", {"state": "DEGRADED"})

        answer = tree.judged(pools.PART)

        assert told(answer) == [("pool/tank", CRITICAL)]
        assert [one.what for one in answer.unknown] == ["zpool status"]

    def test_a_zpool_that_hangs_is_unknown(self) -> None:
        answer = judged(
            pools.PART,
            {
                pools.STATES: "/proc/spl/kstat/zfs/tank/state:ONLINE\n",
                pools.STATUS: Section(name="z", stdout="", stderr="", status=137),
            },
        )

        assert [one.why for one in answer.unknown] == ["it hangs"]


class TestBtrfs:
    def look(self, tree: Tree, errors: int, before: Answer | None = None) -> Answer:
        tree.write(
            "sys/fs/btrfs/0a1b2c3d-1111-2222-3333-444455556666/devinfo/1/error_stats",
            f"write_errs 0\nread_errs {errors}\nflush_errs 0\ncorruption_errs 1\n"
            "generation_errs 0\n",
        )
        return tree.judged(pools.PART, kept=before.kept if before else {})

    def test_errors_are_told_and_critical_while_they_rise(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path)
        before = self.look(tree, 2)

        after = self.look(tree, 3, before)

        assert told(before) == [("pool/0a1b2c3d/1", WARNING)]
        assert told(after) == [("pool/0a1b2c3d/1", CRITICAL)]
        assert after.facts == {"btrfs_0a1b2c3d/1_errors": 4}
