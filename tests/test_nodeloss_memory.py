"""Ages are counted on our own clock, survive restarts, and are never invented."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from opsd.cluster.nodeloss.facts import Pod, Running
from opsd.cluster.nodeloss.memory import (
    MachineUptime,
    Mark,
    Memory,
    decode,
    encode,
    looking,
)

GAP = timedelta(seconds=90)
EMPTY = Memory(boot_id="a", began_s=100.0, looked_s=100.0)


@dataclass
class FakeUptime:
    at_s: float = 1000.0
    boot_id: str = "a"

    def seconds(self) -> float:
        return self.at_s


def test_what_stays_the_same_ages_and_what_changes_is_new() -> None:
    memory = EMPTY.noted("lease", {"a": "1", "b": "1"}, 100.0)
    memory = memory.noted("lease", {"a": "1", "b": "2"}, 110.0)

    assert memory.age("lease/a", 115.0) == timedelta(seconds=15)
    assert memory.age("lease/b", 115.0) == timedelta(seconds=5)
    assert memory.age("lease/unknown", 115.0) == timedelta(0)


def test_who_is_gone_is_forgotten_and_new_when_it_comes_back() -> None:
    memory = EMPTY.noted("lease", {"a": "1", "b": "1"}, 100.0)
    memory = memory.noted("lease", {"b": "1"}, 110.0).noted("lease", {"a": "1"}, 120.0)

    assert list(memory.names("lease")) == ["a"]
    assert memory.age("lease/a", 120.0) == timedelta(0)


def test_families_do_not_touch_each_other() -> None:
    memory = EMPTY.noted("lease", {"a": "1"}, 100.0).noted("ready", {"a": "True"}, 110.0)

    assert memory.age("lease/a", 110.0) == timedelta(seconds=10)
    assert memory.age("ready/a", 110.0) == timedelta(0)


def test_a_look_goes_on_from_the_one_before_it() -> None:
    before = replace(EMPTY, looked_s=910.0).noted("lease", {"a": "1"}, 150.0)

    memory = looking(before, FakeUptime(), longest_gap=GAP)

    assert memory == replace(before, looked_s=1000.0)
    assert memory.watched_for(1000.0) == timedelta(seconds=900)


def test_after_a_gap_the_watch_begins_anew_and_ages_stay_true() -> None:
    before = replace(EMPTY, looked_s=909.9).noted("lease", {"a": "1"}, 150.0)

    memory = looking(before, FakeUptime(), longest_gap=GAP)

    assert memory.watched_for(1000.0) == timedelta(0)
    assert memory.age("lease/a", 1000.0) == timedelta(seconds=850)


def test_nothing_is_believed_of_another_boot_or_of_the_future() -> None:
    before = EMPTY.noted("lease", {"a": "1"}, 100.0)

    for found in (
        looking(None, FakeUptime(), longest_gap=GAP),
        looking(before, FakeUptime(boot_id="b"), longest_gap=GAP),
        looking(replace(before, looked_s=1000.1), FakeUptime(), longest_gap=GAP),
    ):
        assert found.marks == {}
        assert found.watched_for(1000.0) == timedelta(0)


def test_the_watch_begins_with_the_first_answer() -> None:
    unanswered = looking(None, FakeUptime(), longest_gap=GAP).failed("refused", 1000.0)

    again = looking(unanswered, FakeUptime(1060.0), longest_gap=GAP)
    answered = again.noted("lease", {"a": "1"}, 1060.0)
    later = looking(answered, FakeUptime(1090.0), longest_gap=GAP)

    assert again.watched_for(1060.0) == timedelta(0)
    assert later.watched_for(1090.0) == timedelta(seconds=30)
    assert (later.error, later.error_s) == ("refused", 1000.0)


def test_a_memory_is_the_same_after_it_was_written() -> None:
    pod = Pod(
        namespace="db",
        name="pg-0",
        uid="1",
        node="rpi3",
        delete_at=datetime(2026, 11, 22, tzinfo=UTC),
        containers=(Running.TERMINATED,),
    )
    memory = replace(EMPTY, hanging=(pod,), told=("node.lost node/a",), error="x", error_s=1.5)
    memory = memory.noted("lease", {"a": "1"}, 100.0)

    assert decode(encode(memory)) == memory


def test_a_damaged_memory_is_none() -> None:
    for content in (b"", b"{", b"{}", b"[]", b'{"boot_id": 1}', encode(EMPTY)[:-2], b"\xff\xfe"):
        assert decode(content) is None


def test_the_clock_of_the_machine_runs_and_names_its_boot() -> None:
    uptime = MachineUptime()

    before = uptime.seconds()

    assert uptime.seconds() >= before > 0
    assert len(uptime.boot_id) == 36
    assert uptime.boot_id == MachineUptime().boot_id


@given(st.lists(st.tuples(st.floats(0.1, 1000), st.integers(0, 2)), min_size=1, max_size=20))
def test_no_age_is_longer_than_the_time_since_the_last_change(
    steps: list[tuple[float, int]],
) -> None:
    memory, now_s, last, changed_s = EMPTY, 100.0, None, 100.0
    for wait_s, version in steps:
        now_s += wait_s
        if version != last:
            last, changed_s = version, now_s  # it may have changed earlier, unseen
        memory = memory.noted("lease", {"a": str(version)}, now_s)

        age_s = memory.age("lease/a", now_s).total_seconds()

        assert age_s <= now_s - changed_s + 1e-3
        assert memory.marks["lease/a"] == Mark(value=str(version), since_s=changed_s)
