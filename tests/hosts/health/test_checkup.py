"""One visit, judged part by part: what cannot be read is unknown, and nothing is made up."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsd.errors import PermanentError, TransientError
from opsd.hosts.fleet import Visit
from opsd.hosts.health import boots, disks, kernellog, memory, raid, record
from opsd.hosts.health.checkup import PARTS, Checkup, check, is_due, script
from opsd.hosts.health.look import Part, Thresholds
from opsd.hosts.health.record import Record, Slow
from opsd.hosts.machine import Role
from opsd.hosts.script import Section
from opsd.model import Finding, Severity, Unseen
from opsd.testing import START
from tests.rig.checkups import RPI

QUIET = Section(
    name=kernellog.PROBE, stdout="first [    0.000000] Linux version 6.12\n", stderr="", status=0
)
FAST = tuple(part for part in PARTS if not part.is_slow)


@functools.cache
def here() -> Mapping[str, Section]:
    """What this very machine answers."""
    made = script(PARTS)
    done = subprocess.run(["sh"], input=made.text.encode(), capture_output=True, check=True)
    return made.read(done.stdout, done.stderr)


def checked(
    sections: Mapping[str, Section],
    *,
    before: Record | None = None,
    minutes: int = 0,
    asked: Sequence[Part] = PARTS,
    **visit: Any,
) -> Checkup:
    return check(
        replace(Visit(machine=RPI, sections=sections, clock_offset_s=0.0), **visit),
        before=before or Record(),
        at=START + timedelta(minutes=minutes),
        asked=asked,
        thresholds=Thresholds(),
    )


def findings(checkup: Checkup) -> dict[str, Finding]:
    return {one.check: one for one in checkup.observations if isinstance(one, Finding)}


def unseen(checkup: Checkup) -> set[str]:
    return {one.subject for one in checkup.observations if isinstance(one, Unseen)}


def test_every_part_answers_on_a_real_machine() -> None:
    assert {probe.name for part in PARTS for probe in part.probes} == set(here())
    assert [name for name, one in here().items() if not one.is_ok and name != "health-zpool"] == []


def test_a_machine_that_was_read_has_one_line_for_the_table() -> None:
    state = findings(checked(here()))["health.state"]

    assert state.subject == "machine/rpi3"
    assert state.severity is Severity.INFO
    assert {"uptime_d", "memory_available_percent", "root_available_percent"} <= set(state.facts)


def test_the_line_of_the_table_is_the_worst_and_counts_the_others() -> None:
    low = Section(
        name=memory.PROBE, stdout="MemTotal: 9 kB\nMemAvailable: 0 kB\n", stderr="", status=0
    )
    raid_text = "md1 : inactive sdc1[0](S)\n"
    broken = Section(name=raid.PROBE, stdout=raid_text, stderr="", status=0)
    quiet = {**here(), kernellog.PROBE: QUIET}

    well, sick = checked(quiet), checked({**quiet, memory.PROBE: low, raid.PROBE: broken})

    assert findings(well)["health.state"].summary.startswith("healthy (")
    told = "RAID md1 of rpi3 does not run, and 1 more"
    assert findings(sick)["health.state"].summary == told


def test_what_was_cut_off_is_unknown_and_stays_open() -> None:
    cut = {name: one for name, one in here().items() if name != "health-raid"}

    checkup = checked(cut, problem=TransientError("ask rpi3: cut off"))

    assert "machine/rpi3/raid" in unseen(checkup)
    assert "cut off" in str(findings(checkup)["health.unknown"].facts["RAID"])
    assert "RAID" in str(findings(checkup)["health.state"].facts["not_read"])


@pytest.mark.parametrize("name", [probe.name for part in PARTS for probe in part.probes])
def test_no_part_is_healthy_when_its_question_was_killed(name: str) -> None:
    part = next(part for part in PARTS if name in {probe.name for probe in part.probes})
    killed = Section(name=name, stdout="", stderr="", status=137)
    zfs = Section(
        name="health-pool", stdout="/proc/spl/kstat/zfs/tank/state:ONLINE\n", stderr="", status=0
    )
    needed = {"health-pool": zfs} if name == "health-zpool" else {}

    checkup = checked({**here(), **needed, name: killed})

    if part is boots.PART:
        assert unseen(checkup) == {"machine/rpi3"}
    elif name != disks.PROBE:  # killed before the first disk: there is none
        assert f"machine/rpi3/{part.name}" in unseen(checkup)
        assert "health.unknown" in findings(checkup)


def test_one_finding_names_all_that_is_unknown_with_what_helps() -> None:
    missing = Section(name=disks.PROBE, stdout="< sda\n> missing\n", stderr="", status=0)
    silent = Section(name="health-kernel", stdout="first \n", stderr="", status=0)

    unknown = findings(checked({**here(), disks.PROBE: missing, "health-kernel": silent}))[
        "health.unknown"
    ]

    assert unknown.subject == "machine/rpi3/health"
    assert {"kernel_log", "disk_sda"} <= set(unknown.facts)
    assert "apt-get install smartmontools" in unknown.remedy
    assert "dmesg" in unknown.remedy


def test_a_machine_that_does_not_answer_follows_from_its_node() -> None:
    checkup = checked({}, problem=TransientError("log in to rpi3: no answer"))

    (finding,) = findings(checkup).values()
    assert finding.key == ("machine.unreachable", "machine/rpi3")
    assert finding.cause == "node/rpi3"
    assert finding.severity is Severity.WARNING
    assert unseen(checkup) == {"machine/rpi3"}


def test_a_machine_behind_one_that_is_away_follows_from_that_one() -> None:
    checkup = checked({}, problem=TransientError("no answer"), blocked_by="router")

    assert findings(checkup)["machine.unreachable"].cause == "machine/router"


@pytest.mark.parametrize(
    ("role", "problem", "severity"),
    [
        (Role.NODE, TransientError("away"), Severity.WARNING),
        (Role.ROUTER, TransientError("away"), Severity.WARNING),
        (Role.CONTROL_PLANE, TransientError("away"), Severity.CRITICAL),
        (Role.NFS_SERVER, TransientError("away"), Severity.CRITICAL),
        (Role.NFS_SERVER, PermanentError("no key"), Severity.WARNING),
    ],
)
def test_only_what_everything_depends_on_and_is_away_is_critical(
    role: Role, problem: Exception, severity: Severity
) -> None:
    machine = replace(RPI, roles=frozenset({role}))

    checkup = checked({}, machine=machine, problem=problem)

    assert findings(checkup)["machine.unreachable"].severity is severity


def test_a_machine_that_is_away_is_not_forgotten() -> None:
    before = checked(here()).record

    assert checked({}, before=before, problem=TransientError("away")).record == before


class TestSlowParts:
    SICK = Section(
        name=disks.PROBE,
        stdout='< sda\n{"smartctl": {"exit_status": 8}, "smart_status": {"passed": false}}\n> 8\n'
        "< sdb\n> missing\n",
        stderr="",
        status=0,
    )

    def test_between_two_readings_what_is_open_stays_and_what_is_known_is_repeated(self) -> None:
        quiet = {**here(), kernellog.PROBE: QUIET}  # this machine's log has lines of other tests
        first = checked({**quiet, disks.PROBE: self.SICK})

        second = checked(quiet, before=first.record, asked=FAST, minutes=15)

        assert "health.disk_failing" in findings(first)
        assert "health.disk_failing" not in findings(second)
        assert "machine/rpi3/disk" in unseen(second)
        state = findings(second)["health.state"]
        assert state.facts["disk_sda"] == "failing"
        assert state.summary == "disk sda of rpi3 is failing: it says itself that it is failing"
        assert "disk_sdb" in findings(second)["health.unknown"].facts

    @pytest.mark.parametrize(("minutes", "slow_parts"), [(54, 0), (55, 1), (-1, 1)])
    def test_a_reading_is_due_after_its_time_or_when_the_clock_was_set_back(
        self, minutes: int, slow_parts: int
    ) -> None:
        known = Record(slow={"disk": Slow(read_at=START)})
        at = START + timedelta(minutes=minutes)
        due = [disks.PART] if is_due(known, disks.PART, at=at, every=timedelta(minutes=55)) else []

        assert len(due) == slow_parts

    def test_what_was_never_read_is_due(self) -> None:
        assert is_due(Record(), disks.PART, at=START, every=timedelta(hours=1))


class TestWhatIsKept:
    def test_what_is_known_comes_back_from_the_disk(self, tmp_path: Path) -> None:
        known = {"rpi3": checked({**here(), disks.PROBE: TestSlowParts.SICK}).record}
        record.write(tmp_path / "m.json", known)

        back = record.read(tmp_path / "m.json")

        assert back == known

    @pytest.mark.parametrize(
        "content", ["", "{", "[]", '{"machines": 3}', '{"machines": {"a": {}}}', "\0"]
    )
    def test_what_cannot_be_read_is_nothing(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "m.json").write_text(content)

        assert record.read(tmp_path / "m.json") == {}

    def test_a_disk_that_refuses_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(TransientError, match="gone"):
            record.write(tmp_path / "gone" / "m.json", {})


TEXTS = st.one_of(
    st.text(max_size=300),
    st.lists(
        st.sampled_from(
            [
                "0",
                "-1",
                "md0 :",
                "active",
                "[2/1]",
                "ext4",
                " = ",
                "9" * 400,
                "first [",
                "1.5]",
                "MemTotal:",
                "kB",
                "chrony=",
                "< sda",
                "> 0",
                "{}",
                "/sys/class/net/eth0/speed:",
                "\n",
                "\udcff",
                "nan",
                "x",
            ]
        ),
        max_size=40,
    ).map(" ".join),
)


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted({p.name for part in PARTS for p in part.probes})), text=TEXTS)
def test_no_answer_whatever_breaks_the_run(name: str, text: str) -> None:
    odd = Section(name=name, stdout=text, stderr="", status=0)

    first = checked({**here(), name: odd})
    second = checked({**here(), name: odd}, before=first.record, minutes=15)

    assert all(len(one.summary) <= 120 for one in findings(second).values())
    assert all("\n" not in one.summary for one in findings(second).values())


@settings(max_examples=100, deadline=None)
@given(
    part=st.sampled_from([part.name for part in PARTS]),
    kept=st.dictionaries(
        st.sampled_from(
            [
                "level",
                "levels",
                "errors",
                "eth0",
                "starts",
                "io",
                "seen_s",
                "open",
                "written",
                "uptime_s",
                "is_low",
                "/",
            ]
        ),
        st.one_of(
            st.none(),
            st.text(max_size=5),
            st.integers(),
            st.lists(st.integers()),
            st.dictionaries(st.sampled_from(["errors", "hours", "/"]), st.none()),
        ),
    ),
)
def test_nothing_that_was_kept_by_another_release_breaks_the_run(
    part: str, kept: dict[str, object]
) -> None:
    before = Record(boot_id=here()[boots.PROBE].stdout.split("\n")[0], kept={part: kept})

    checkup = checked(here(), before=before)

    assert "health.state" in findings(checkup)
