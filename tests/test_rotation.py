from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsd.backup.share import rotation
from opsd.backup.share.engine import Part

START = datetime(2026, 11, 1, tzinfo=UTC)
MONTH = timedelta(days=30)


def slots(interval: timedelta, count: int) -> list[datetime]:
    return [START + interval * number for number in range(count)]


@pytest.mark.parametrize(
    ("interval", "parts"),
    [
        (timedelta(days=1), 27),
        (timedelta(hours=1), rotation.MOST_PARTS),
        (timedelta(days=7), 3),
        (timedelta(days=90), 1),
    ],
)
def test_everything_is_read_within_the_time(interval: timedelta, parts: int) -> None:
    found = rotation.parts(slots(interval, 5), within=MONTH)

    assert found == parts
    assert found == 1 or found * interval <= MONTH


def test_a_first_backup_is_taken_to_be_daily() -> None:
    assert rotation.parts([START], within=MONTH) == 27


def test_the_parts_follow_each_other_and_begin_again(tmp_path: Path) -> None:
    notes = tmp_path / "rotation.json"
    seen = []

    for _ in range(5):
        part = rotation.next_part(notes, of=3)
        seen.append(part.n)
        rotation.done(notes, part)

    assert seen == [1, 2, 3, 1, 2]


def test_a_part_that_failed_is_due_again(tmp_path: Path) -> None:
    notes = tmp_path / "rotation.json"
    rotation.done(notes, rotation.next_part(notes, of=3))

    assert rotation.next_part(notes, of=3) == rotation.next_part(notes, of=3) == Part(n=2, of=3)


def test_a_round_keeps_its_size_when_there_is_more_time(tmp_path: Path) -> None:
    notes = tmp_path / "rotation.json"
    rotation.done(notes, Part(n=1, of=3))

    assert rotation.next_part(notes, of=9) == Part(n=2, of=3)


def test_a_round_that_must_hurry_begins_anew(tmp_path: Path) -> None:
    notes = tmp_path / "rotation.json"
    rotation.done(notes, Part(n=5, of=9))

    assert rotation.next_part(notes, of=3) == Part(n=1, of=3)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"n": "x", "of": 3}', '{"n": 7, "of": 3}'])
def test_lost_notes_only_begin_the_round_anew(tmp_path: Path, content: str) -> None:
    notes = tmp_path / "rotation.json"
    notes.write_text(content)

    assert rotation.next_part(notes, of=3) == Part(n=1, of=3)
