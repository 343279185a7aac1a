"""Memory, pressure, starts, clocks: readings of one probe each."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from opsd.hosts.health import boots, clock, memory, pressure
from opsd.hosts.health.look import Answer, Boot, Unreadable
from opsd.hosts.machine import Role
from opsd.hosts.script import Section
from opsd.model import Severity
from opsd.testing import START
from tests.rig.checkups import RPI, SHELLS, Tree, again, judged

WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL


def checks(answer: Answer) -> list[str]:
    return [one.check for one in answer.findings]


class TestMemory:
    def text(self, available_kib: int) -> str:
        return (
            f"MemTotal:        4000000 kB\nMemFree:  1 kB\nMemAvailable: {available_kib} kB\n"
            "SwapTotal:     204800 kB\nSwapFree:      102400 kB\nHugePages_Total:       0\n"
        )

    @pytest.mark.parametrize(("available", "told"), [(200_000, 0), (199_999, 1)])
    def test_less_than_five_percent_is_told(self, available: int, told: int) -> None:
        answer = judged(memory.PART, {memory.PROBE: self.text(available)})

        assert len(answer.findings) == told
        assert answer.facts["swap_used_mib"] == 100

    @pytest.mark.parametrize(("available", "told"), [(319_999, 1), (320_000, 0)])
    def test_it_is_over_when_enough_is_back(self, available: int, told: int) -> None:
        low = judged(memory.PART, {memory.PROBE: self.text(1000)})

        later = again(memory.PART, low, self.text(available), after=timedelta(minutes=15))

        assert len(later.findings) == told

    @pytest.mark.parametrize(
        ("roles", "available", "told"),
        [
            ({Role.NODE}, 131_072, 0),
            ({Role.NODE}, 131_071, 1),
            ({Role.ROUTER}, 51_200, 0),
            ({Role.ROUTER}, 51_199, 1),
        ],
    )
    def test_on_a_small_node_it_is_told_before_its_kubelet_acts(
        self, roles: set[Role], available: int, told: int
    ) -> None:
        text = f"MemTotal: 1024000 kB\nMemAvailable: {available} kB\n"
        machine = replace(RPI, roles=frozenset(roles))

        answer = judged(memory.PART, {memory.PROBE: text}, machine=machine)

        assert len(answer.findings) == told

    @pytest.mark.parametrize("text", ["", "MemTotal: 100 kB\n", "garbage"])
    def test_what_names_no_memory_is_unknown(self, text: str) -> None:
        with pytest.raises(Unreadable):
            judged(memory.PART, {memory.PROBE: text})


class TestPressure:
    def tree(self, root: Path, io: float, memory_share: float = 0.0) -> Tree:
        tree = Tree(root)
        for what, share in (("io", io), ("memory", memory_share), ("cpu", 0.0)):
            tree.write(
                f"proc/pressure/{what}",
                f"some avg10=0.00 avg60=0.00 avg300=99.00 total=1\n"
                f"full avg10=0.00 avg60=0.00 avg300={share:.2f} total=1\n",
            )
        return tree

    @pytest.mark.parametrize(
        ("io", "memory_share", "told"),
        [
            (39.99, 9.99, []),
            (40.0, 0.0, ["machine/rpi3/pressure/io"]),
            (0.0, 10.0, ["machine/rpi3/pressure/memory"]),
        ],
    )
    def test_a_machine_that_stood_still_is_told(
        self, tmp_path: Path, io: float, memory_share: float, told: list[str]
    ) -> None:
        answer = self.tree(tmp_path, io, memory_share).judged(pressure.PART)

        assert [one.subject for one in answer.findings] == told

    @pytest.mark.parametrize(("io", "told"), [(30.0, 1), (29.99, 0)])
    def test_it_is_over_a_quarter_below_its_limit(
        self, tmp_path: Path, io: float, told: int
    ) -> None:
        kept = {"open": ["machine/rpi3/pressure/io"]}

        answer = self.tree(tmp_path, io).judged(pressure.PART, kept=kept)

        assert len(answer.findings) == told

    @pytest.mark.parametrize("shell", SHELLS)
    def test_a_kernel_that_does_not_measure_it_says_how_it_would(
        self, tmp_path: Path, shell: str
    ) -> None:
        answer = Tree(tmp_path).judged(pressure.PART, shell=shell)

        assert "psi=1" in str(answer.facts["pressure"])
        assert not answer.unknown


class TestBoots:
    def look(self, uptime_s: float, *, minutes: int, before: Answer | None, same: bool) -> Answer:
        return judged(
            boots.PART,
            {boots.PROBE: f"id\n{uptime_s} 1\n0.5 0.4 0.3 1/2 3\n"},
            boot=Boot(id="id", uptime_s=uptime_s),
            is_same_boot=same,
            kept=before.kept if before else {},
            at=START + timedelta(minutes=minutes),
        )

    def starts(self, count: int) -> Answer:
        answer = self.look(60.0, minutes=0, before=None, same=False)
        for number in range(1, count):
            answer = self.look(60.0, minutes=15 * number, before=answer, same=False)
        return answer

    @pytest.mark.parametrize(("count", "told"), [(1, []), (2, []), (3, ["health.restarts"])])
    def test_three_starts_within_a_day_are_told(self, count: int, told: list[str]) -> None:
        assert checks(self.starts(count)) == told

    def test_a_machine_that_goes_on_running_was_not_started(self) -> None:
        answer = self.starts(2)

        for number in range(2, 9):
            answer = self.look(900.0 * number, minutes=15 * number, before=answer, same=True)

        assert checks(answer) == []

    def test_starts_are_forgotten_after_a_day(self) -> None:
        answer = self.starts(3)

        later = self.look(90_000.0, minutes=24 * 60 + 45, before=answer, same=True)

        assert checks(later) == []

    def test_without_proc_or_sys_nothing_is_concluded_of_the_whole_machine(self) -> None:
        failed = Section(name="b", stdout="", stderr="/sys is not mounted\n", status=9)

        with pytest.raises(Unreadable, match="/sys is not mounted"):
            boots.boot_of(failed)

    @pytest.mark.parametrize("text", ["", "id\n", "id\nx y\n", "id\n\n\n"])
    def test_an_uptime_that_makes_no_sense_is_unknown(self, text: str) -> None:
        with pytest.raises(Unreadable):
            boots.boot_of(Section(name="b", stdout=text, stderr="", status=0))


# What chronyc 4.3 printed with a source that is 1.5 s ahead, and "1.499998689 seconds slow of
# NTP time" without -c; and what it prints without any source.
SLOW = (
    "7F000001,127.0.0.1,6,1795408238.137320306,1.499998689,0.000000102,0.000000835,0.079,0.006,"
    "0.249,0.000004769,0.000000440,0.5,Normal"
)
UNSET = (
    "00000000,,0,0.000000000,0.000000000,0.000000000,0.000000000,0.000,0.000,0.000,1.000000000,"
    "1.000000000,0.0,Not synchronised"
)
CHRONY = SLOW.replace("1.499998689", "{}")


class TestClock:
    def look(self, said: str, *, offset_s: float | None = 0.0) -> Answer:
        return judged(clock.PART, {clock.PROBE: f"{said}\n"}, clock_offset_s=offset_s)

    @pytest.mark.parametrize(
        ("offset_s", "told"),
        [(2.0, []), (-2.0, []), (2.1, [WARNING]), (-5.0, [WARNING]), (-5.1, [CRITICAL])],
    )
    def test_a_clock_off_from_ours_is_told(self, offset_s: float, told: list[Severity]) -> None:
        answer = self.look("systemd=yes", offset_s=offset_s)

        assert [one.severity for one in answer.findings] == told

    def test_a_clock_that_is_off_by_a_year_says_so(self) -> None:
        (finding,) = self.look("systemd=yes", offset_s=-365 * 86400.0).findings

        assert finding.summary == "the clock of rpi3 is 365 days behind"

    def test_what_chrony_calls_slow_is_behind(self) -> None:
        (finding,) = self.look(f"chrony={SLOW}").findings

        assert finding.summary == "the clock of rpi3 is 1.5 s behind"

    @pytest.mark.parametrize(("offset", "told"), [("0.500000", []), ("-0.600000", [WARNING])])
    def test_what_chrony_measures_is_told_from_half_a_second_on(
        self, offset: str, told: list[Severity]
    ) -> None:
        answer = self.look(f"chrony={CHRONY.format(offset)}")

        assert [one.severity for one in answer.findings] == told

    def test_what_is_off_from_ours_follows_from_ours(self) -> None:
        (finding,) = self.look("systemd=yes", offset_s=3.0).findings

        assert finding.cause == clock.OWN

    @pytest.mark.parametrize(
        ("offsets_s", "told"),
        [
            ([300.0, 300.5], None),  # two cannot outvote one
            ([300.0, 300.5, 299.0], CRITICAL),
            ([300.0, 300.5, 299.0, 0.0], CRITICAL),
            ([300.0, 300.5, 0.0, 0.0], None),
            ([0.0, 0.5, 300.0], None),
            ([2.0, 2.0, 2.0], None),
            ([2.1, 2.1, 2.1], WARNING),
            ([-4.0, 300.0, 9000.0], None),  # they do not agree either
        ],
    )
    def test_our_own_clock_is_blamed_when_most_agree_against_it(
        self, offsets_s: list[float], told: Severity | None
    ) -> None:
        finding = clock.own_clock(offsets_s)

        assert (finding.severity if finding else None) is told

    def test_our_own_clock_is_off_the_other_way(self) -> None:
        finding = clock.own_clock([300.0, 300.0, 301.0])

        assert finding is not None
        assert finding.summary == "opsd's own clock is 5 minutes behind, as 3 of 3 machines agree"

    @pytest.mark.parametrize("said", ["systemd=no", f"chrony={UNSET}"])
    def test_a_clock_that_nothing_keeps_right_is_told(self, said: str) -> None:
        assert checks(self.look(said)) == ["health.clock_unset"]

    @pytest.mark.parametrize("said", ["", "systemd=", "chrony=506 Cannot talk to daemon"])
    def test_where_nobody_says_the_comparison_is_left_and_the_table_says_so(
        self, said: str
    ) -> None:
        answer = self.look(said)

        assert (checks(answer), answer.unknown) == ([], ())
        assert answer.facts["clock"] == "not said whether it is kept right"

    def test_without_both_it_is_unknown(self) -> None:
        answer = self.look("", offset_s=None)

        assert [one.what for one in answer.unknown] == ["clock"]

    @pytest.mark.parametrize("shell", SHELLS)
    def test_chrony_is_asked_first(self, tmp_path: Path, shell: str) -> None:
        tree = Tree(tmp_path)
        tree.program("chronyc", f"echo '{CHRONY.format('0.0001')}'")
        tree.program("timedatectl", "echo NTPSynchronized=no")

        answer = tree.judged(clock.PART, shell=shell, clock_offset_s=0.0)

        assert answer.facts["clock"] == "kept right by chrony"

    @pytest.mark.parametrize("shell", SHELLS)
    def test_systemd_is_asked_when_chrony_does_not_run(self, tmp_path: Path, shell: str) -> None:
        tree = Tree(tmp_path)
        tree.program("chronyc", "echo '506 Cannot talk to daemon'; exit 1")
        tree.program("timedatectl", "echo NTPSynchronized=no")

        answer = tree.judged(clock.PART, shell=shell, clock_offset_s=0.0)

        assert checks(answer) == ["health.clock_unset"]
