from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from opsd.alerts.collapse import MOST_LINES, collapsed, is_collapse
from opsd.alerts.render import BODY_CHARACTERS, TITLE_CHARACTERS
from opsd.model import Message, Severity
from opsd.state import OutboxEntry

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def entry(number: int, title: str = "", severity: Severity = Severity.WARNING) -> OutboxEntry:
    message = Message(
        key=f"alert/{number}", severity=severity, title=title or f"t{number}", body="b\nb"
    )
    return waiting(number, message, at=NOON + timedelta(minutes=number))


def waiting(number: int, message: Message, *, at: datetime = NOON) -> OutboxEntry:
    return OutboxEntry(
        id=number, message=message, created_at=at, attempts=9, next_try_at=at, last_error=""
    )


def lines_of(message: Message) -> list[str]:
    return [line for line in message.body.splitlines() if line.startswith("2026")]


def hidden_in(message: Message) -> int:
    found = [line for line in message.body.splitlines() if line.startswith("and ")]
    return int(found[0].split()[1]) if found else 0


def test_each_message_is_a_line_the_worst_first_in_local_time() -> None:
    entries = [entry(1, "disk"), entry(2, "dump", Severity.CRITICAL), entry(3, "pod")]

    message = collapsed(entries, target="phone", timezone=ZoneInfo("Europe/Berlin"))

    assert message.title == "While phone could not be reached: 3 messages"
    assert lines_of(message) == [
        "2026-11-22 13:02 critical: dump",
        "2026-11-22 13:01 warning: disk",
        "2026-11-22 13:03 warning: pod",
    ]
    assert (message.severity, message.tags) == (Severity.CRITICAL, ("phone",))


def test_one_message_is_not_many() -> None:
    message = collapsed([entry(1)], target="phone", timezone=UTC)

    assert message.title == "While phone could not be reached: 1 message"


def test_what_finds_no_room_is_counted() -> None:
    exactly = collapsed(
        [entry(number) for number in range(MOST_LINES)], target="phone", timezone=UTC
    )
    one_more = collapsed(
        [entry(number) for number in range(MOST_LINES + 1)], target="phone", timezone=UTC
    )

    assert (len(lines_of(exactly)), hidden_in(exactly)) == (MOST_LINES, 0)
    assert (len(lines_of(one_more)), hidden_in(one_more)) == (MOST_LINES, 1)


def test_a_full_collapse_with_hostile_names_still_fits() -> None:
    long = [entry(number, "\udcff\x1b[31m\n" + "x" * 500) for number in range(100)]

    message = collapsed(long, target="p" * 300 + "\n", timezone=UTC)

    assert len(message.title) <= TITLE_CHARACTERS
    assert len(message.body) <= BODY_CHARACTERS
    assert "\x1b" not in message.body
    assert len(lines_of(message)) + hidden_in(message) == 100


@given(
    batches=st.lists(
        st.tuples(st.integers(1, 60), st.text(min_size=1, max_size=80), st.sampled_from(Severity)),
        min_size=1,
        max_size=5,
    )
)
def test_collapsing_again_and_again_counts_every_message_once_and_never_nests(
    batches: Sequence[tuple[int, str, Severity]],
) -> None:
    number, keys = 0, set[str]()
    held: list[OutboxEntry] = []
    for size, title, severity in batches:
        new = [entry(number + index, title, severity) for index in range(size)]
        message = collapsed([*new, *held], target="phone", timezone=UTC)
        number += size
        held = [waiting(number, message)]
        number += 1
        keys.add(message.key)

    total = sum(size for size, _, _ in batches)
    worst = max(severity for _, _, severity in batches)
    assert is_collapse(held[0])
    assert message.severity is worst
    assert lines_of(message)[0].split()[2] == f"{worst.label}:"
    assert len(lines_of(message)) + hidden_in(message) == total
    assert len(lines_of(message)) == min(total, MOST_LINES)
    assert f": {total} message" in message.title
    assert len(keys) == len(batches)
