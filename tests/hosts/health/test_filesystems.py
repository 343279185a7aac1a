"""Local file systems: full, read-only, damaged."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from opsd.hosts.health.filesystems import PART
from opsd.hosts.health.look import Answer
from opsd.hosts.health.mounted import PROBE, parse, unescaped
from opsd.hosts.machine import Role
from opsd.hosts.script import Section
from opsd.model import Severity
from opsd.testing import START
from tests.rig.checkups import RPI, SHELLS, Tree, judged

WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL
MIB, GIB = 2**20, 2**30
UNIT = 4096


def mount(
    path: str = "/",
    *,
    device: str = "179:2",
    kind: str = "ext4",
    options: str = "rw",
    size: int = 32 * GIB,
    percent: float = 50.0,
    inodes: tuple[int, int] = (1000, 900),
) -> str:
    """A line as the machine prints it; `percent` is available."""
    blocks = size // UNIT
    free = math.ceil(blocks * percent / 100)
    return (
        f"27 1 {device} / {path} rw,relatime shared:1 - {kind} /dev/mmcblk0p2 {options}"
        f" = {UNIT} {blocks} {free} {free} {inodes[0]} {inodes[1]}\n"
    )


def look(text: str, before: Answer | None = None, **about: object) -> Answer:
    return judged(PART, {PROBE: text}, kept=before.kept if before else {}, **about)


def told(answer: Answer) -> list[tuple[str, Severity]]:
    return [(one.check.removeprefix("health."), one.severity) for one in answer.findings]


class TestSpace:
    @pytest.mark.parametrize(
        ("percent", "expected"),
        [
            (12.0, []),
            (11.9, [("disk_full", WARNING)]),
            (5.0, [("disk_full", WARNING)]),
            (4.9, [("disk_full", CRITICAL)]),
            (0.0, [("disk_full", CRITICAL)]),
        ],
    )
    def test_what_is_nearly_full_is_told(
        self, percent: float, expected: list[tuple[str, Severity]]
    ) -> None:
        assert told(look(mount(percent=percent))) == expected

    @pytest.mark.parametrize(
        ("percent", "expected"),
        [(13.9, [("disk_full", WARNING)]), (14.0, []), (6.9, [("disk_full", WARNING)])],
    )
    def test_it_is_over_two_percent_above_its_limit(
        self, percent: float, expected: list[tuple[str, Severity]]
    ) -> None:
        before = look(mount(percent=11.0))

        assert told(look(mount(percent=percent), before)) == expected

    @pytest.mark.parametrize(
        ("available", "expected"), [(100 * GIB, []), (99 * GIB, [("disk_full", WARNING)])]
    )
    def test_a_disk_for_data_with_plenty_left_is_not_full(
        self, available: int, expected: list[tuple[str, Severity]]
    ) -> None:
        size = 1000 * GIB
        data = mount("/srv/nfs", size=size, percent=100 * available / size)

        answer = look(data, machine=replace(RPI, roles=frozenset({Role.NFS_SERVER})))

        assert told(answer) == expected

    def test_plenty_is_too_little_where_the_kubelet_counts_percent(self) -> None:
        data = mount("/var/lib/kubelet", device="8:1", size=4000 * GIB, percent=9.0)

        (finding,) = look(mount() + data).findings

        assert finding.facts["holds"] == "/var/lib/kubelet"

    def test_what_lies_on_it_is_named(self) -> None:
        control_plane = replace(RPI, roles=frozenset({Role.NODE, Role.CONTROL_PLANE}))
        text = (
            "bound 8:1 /var/lib/containerd\n"
            + mount(percent=1.0)
            + mount("/data", device="8:1", percent=1.0)
        )

        root, data = look(text, machine=control_plane).findings

        assert root.facts["holds"] == "/var/lib/etcd, /var/lib/kubelet"
        assert data.facts["holds"] == "/var/lib/containerd"

    @pytest.mark.parametrize(
        ("left", "expected"), [(50 * MIB, []), (49 * MIB, [("boot_full", WARNING)])]
    )
    @pytest.mark.parametrize("path", ["/boot", "/boot/firmware"])
    def test_a_boot_partition_must_hold_the_next_kernel(
        self, path: str, left: int, expected: list[tuple[str, Severity]]
    ) -> None:
        boot = mount(path, kind="vfat", size=500 * MIB, percent=left / 5 / MIB, inodes=(0, 0))

        assert told(look(boot)) == expected

    @pytest.mark.parametrize(
        ("free", "expected"),
        [
            (100, []),
            (99, [("inodes_full", WARNING)]),
            (30, [("inodes_full", WARNING)]),
            (29, [("inodes_full", CRITICAL)]),
        ],
    )
    def test_inodes_that_run_out_are_told(
        self, free: int, expected: list[tuple[str, Severity]]
    ) -> None:
        assert told(look(mount(inodes=(1000, free)))) == expected

    def test_a_file_system_that_makes_inodes_as_needed_never_runs_out(self) -> None:
        assert told(look(mount(kind="btrfs", inodes=(0, 0)))) == []

    def test_the_subject_is_the_path(self) -> None:
        text = mount(percent=1) + mount("/var", device="8:1", percent=1)

        assert [one.subject for one in look(text).findings] == [
            "machine/rpi3/filesystem/",
            "machine/rpi3/filesystem/var",
        ]

    def test_the_fullest_is_stated(self) -> None:
        answer = look(mount(percent=60) + mount("/srv", device="8:1", percent=20))

        assert answer.facts == {
            "fullest": "/srv",
            "fullest_available_percent": 20.0,
            "root_available_percent": 60.0,
        }

    def test_one_that_cannot_be_asked_is_unknown_and_the_others_are_judged(self) -> None:
        broken = mount("/srv", device="8:1").partition(" = ")[0] + " = \n"
        section = Section(
            name=PROBE,
            stdout=mount(percent=1) + broken,
            stderr="stat: cannot read file system information for '/srv': Input/output error\n",
            status=0,
        )

        answer = judged(PART, {PROBE: section})

        assert told(answer) == [("disk_full", CRITICAL)]
        assert "/srv" in answer.unknown[0].why
        assert "Input/output error" in answer.unknown[0].why

    def test_a_machine_without_any_is_unknown(self) -> None:
        assert [one.what for one in look("").unknown] == ["file systems"]


class TestReadOnly:
    FSTAB = "fstab PARTUUID=1 / ext4 defaults,noatime 0 1\n"

    def test_what_should_be_writable_and_is_not_is_critical(self) -> None:
        answer = look(self.FSTAB + mount(options="ro"))

        assert told(answer) == [("read_only", CRITICAL)]

    @pytest.mark.parametrize("options", ["rw,emergency_ro", "rw,shutdown"])
    def test_a_kernel_that_gave_up_writing_is_told(self, options: str) -> None:
        assert told(look(self.FSTAB + mount(options=options))) == [("read_only", CRITICAL)]

    def test_what_is_meant_to_be_read_only_is_no_finding(self) -> None:
        fstab = "fstab /dev/sda1 /mnt/archive ext4 ro,nofail 0 0\n"

        assert told(look(fstab + mount("/mnt/archive", options="ro"))) == []

    def test_what_was_writable_and_became_read_only_is_told_until_it_is_again(self) -> None:
        first = look(mount("/data"))

        broken = look(mount("/data", options="ro"), first)
        still = look(mount("/data", options="ro"), broken)
        mended = look(mount("/data"), still)

        assert [told(one) for one in (first, broken, still, mended)] == [
            [],
            [("read_only", CRITICAL)],
            [("read_only", CRITICAL)],
            [],
        ]

    def test_what_was_mounted_read_only_by_hand_is_no_finding(self) -> None:
        assert told(look(mount("/mnt/stick", options="ro"))) == []


class TestDamage:
    def at(self, *, count: int, days_ago: float) -> str:
        seconds = START.timestamp() - days_ago * 86400
        return f"{mount()}ext4 179:2 {count} {seconds:.0f}\n"

    @pytest.mark.parametrize(("days_ago", "severity"), [(6.9, CRITICAL), (7.1, WARNING)])
    def test_damage_of_the_last_week_is_critical(
        self, days_ago: float, severity: Severity
    ) -> None:
        answer = look(self.at(count=3, days_ago=days_ago))

        assert told(answer) == [("filesystem_errors", severity)]

    def test_a_count_that_rises_is_critical_although_the_clock_is_wrong(self) -> None:
        before = look(self.at(count=3, days_ago=400))

        after = look(self.at(count=4, days_ago=400), before, at=START + timedelta(minutes=15))

        assert told(before) == [("filesystem_errors", WARNING)]
        assert told(after) == [("filesystem_errors", CRITICAL)]

    def test_damage_of_another_device_is_not_told_of_this_one(self) -> None:
        assert told(look(f"{mount()}ext4 8:1 3 1\n")) == []


class TestTheScript:
    """The mounts of a tree of files; the space is that of the real disk below it."""

    def mounted(self, root: Path, *lines: str) -> Tree:
        tree = Tree(root)
        tree.write("proc/self/mountinfo", "".join(f"{line}\n" for line in lines))
        return tree

    @pytest.mark.parametrize("shell", SHELLS)
    def test_only_local_file_systems_are_asked_and_each_once(
        self, tmp_path: Path, shell: str
    ) -> None:
        tree = self.mounted(
            tmp_path,
            "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw",
            "28 1 0:40 / /mnt/nas rw - nfs4 nas:/srv rw,hard",
            "29 1 0:41 / /mnt/fuse rw - fuse.sshfs nas:/ rw",
            "30 1 254:0 /pods /var/lib/kubelet rw - ext4 /dev/vda rw",
            "31 1 7:1 / /snap/core rw - squashfs /dev/loop1 ro",
            "32 1 0:42 / /run rw - tmpfs tmpfs rw",
            "33 1 0:43 / /var/lib/kubelet/pods/1 rw - tmpfs tmpfs rw",
        )
        asked = tree.ask(PART, shell=shell)[PROBE].stdout

        mounts = parse(asked)

        assert [one.path for one in mounts.mounts] == ["/", "/run"]
        assert mounts.bound == {"/var/lib/kubelet": "254:0"}
        assert "nas" not in asked

    @pytest.mark.parametrize("shell", SHELLS)
    def test_a_path_with_a_space_is_asked_too(self, tmp_path: Path, shell: str) -> None:
        place = tmp_path / "my disk"
        place.mkdir()
        escaped = str(place).replace(" ", "\\040")
        tree = self.mounted(tmp_path / "t", f"27 1 8:1 / {escaped} rw - ext4 /dev/sda1 rw")

        (mount,) = parse(tree.ask(PART, shell=shell)[PROBE].stdout).mounts

        assert mount.path == str(place)
        assert mount.space is not None

    @pytest.mark.parametrize("shell", SHELLS)
    def test_what_ext4_counts_is_read(self, tmp_path: Path, shell: str) -> None:
        tree = self.mounted(tmp_path, "27 1 179:2 / / rw - ext4 /dev/root rw")
        tree.files("sys/fs/ext4/mmcblk0p2", {"errors_count": 3, "last_error_time": 1700000000})
        tree.files("sys/class/block/mmcblk0p2", {"dev": "179:2"})
        tree.files("sys/fs/ext4/sda1", {"errors_count": 0, "last_error_time": 0})

        assert parse(tree.ask(PART, shell=shell)[PROBE].stdout).errors == {
            "179:2": (3, 1700000000)
        }

    def test_fstab_is_read_without_its_comments(self, tmp_path: Path) -> None:
        tree = self.mounted(tmp_path, "27 1 179:2 / / rw - ext4 /dev/root rw")
        tree.write("etc/fstab", "# /dev/x /old ext4 rw 0 0\nLABEL=r / ext4 defaults 0 1\n")

        assert parse(tree.ask(PART)[PROBE].stdout).writable == frozenset({"/"})


@pytest.mark.parametrize(
    ("written", "path"),
    [("/a\\040b", "/a b"), ("/a\\134b", "/a\\b"), ("/a\\", "/a\\"), ("/x\\9", "/x\\9")],
)
def test_paths_are_written_for_people(written: str, path: str) -> None:
    assert unescaped(written) == path


def test_datasets_of_one_pool_are_one() -> None:
    text = "".join(
        f"2{n} 1 0:{n} / /tank/{n} rw - zfs tank/{n} rw = 4096 100 1 1 100 99\n" for n in range(3)
    )

    assert len(look(text).findings) == 1
