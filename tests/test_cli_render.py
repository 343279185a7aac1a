"""What people read: harmless, aligned, as exact as they need."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsd.backup.naming import quote
from opsd.cli.render import (
    Cell,
    Column,
    Screen,
    Tone,
    age_text,
    count_text,
    joined,
    name_text,
    print_json,
    size_text,
    span_text,
    time_text,
)

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


class Terminal(io.StringIO):
    """A terminal of some width."""

    def isatty(self) -> bool:
        return True


def test_columns_are_aligned_and_never_cut_in_a_pipe() -> None:
    stream = io.StringIO()

    Screen(stream).table(
        [Column("NAME"), Column("SIZE", right=True)],
        [("a" * 200, "1 B"), (Cell("b", Tone.BAD), "10 KiB")],
    )

    lines = stream.getvalue().splitlines()
    assert lines[0] == f"{'NAME':<200}    SIZE"
    assert lines[1] == f"{'a' * 200}     1 B"
    assert lines[2] == f"{'b':<200}  10 KiB"


def test_a_column_without_text_is_left_out() -> None:
    stream = io.StringIO()

    Screen(stream).table([Column("A"), Column("EMPTY"), Column("B")], [("1", "", "2")])

    assert stream.getvalue().split() == ["A", "B", "1", "2"]


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
@pytest.mark.parametrize("name", ["a\x1b[31mb", "a\nb", "a\rb", "a\u202eb", "\udcff\x00", "[red]"])
def test_no_name_can_move_the_cursor(
    kind: type[io.StringIO], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = kind()
    screen = Screen(stream)

    screen.line(name)
    screen.detail(name, indent=2, mark="> ")
    screen.table([Column("N")], [(name,)])

    text = stream.getvalue()
    assert not {"\x1b", "\r", "\u202e", "\x00"} & set(text)
    assert ("[red]" in text) == (name == "[red]")
    text.encode()


@given(st.text(max_size=20))
def test_a_name_is_shown_as_its_owner_knows_it(name: str) -> None:
    shown = name_text(f"database/main/{quote(name)}")

    assert shown.startswith("database/main")
    assert shown.isprintable() or not shown.isascii()
    if name.isascii() and name.isalnum():
        assert shown == f"database/main/{name}"


def test_a_subject_that_is_not_quoted_well_is_shown_as_it_is() -> None:
    assert name_text("database/ü/=FF") == "database/ü/=FF"


def test_json_takes_any_name_and_any_value() -> None:
    stream = io.StringIO()

    print_json(
        {"name": "\udcff", "at": NOW, "span": timedelta(seconds=1.5), "n": (1, None)}, stream
    )

    read = json.loads(stream.getvalue())
    assert read == {"name": "\\udcff", "at": NOW.isoformat(), "span": 1.5, "n": [1, None]}
    stream.getvalue().encode()


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1024.0 KiB"),
        (1024**2, "1.0 MiB"),
        (int(12.4 * 1024**2), "12.4 MiB"),
        (1024**3, "1.0 GiB"),
        (1024**4, "1.0 TiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.9, "9.9 s"),
        (10, "10 s"),
        (89, "89 s"),
        (90, "2 min"),
        (5399, "90 min"),
        (5400, "2 h"),
        (2 * 86400 - 1, "48 h"),
        (2 * 86400, "2 days"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert span_text(timedelta(seconds=seconds)) == text


def test_ages_look_both_ways() -> None:
    assert age_text(NOW - timedelta(hours=3), NOW) == "3 h ago"
    assert age_text(NOW + timedelta(minutes=5), NOW) == "in 5 min"
    assert age_text(None, NOW) == "never"


def test_times_are_the_operators() -> None:
    assert time_text(NOW, ZoneInfo("Europe/Berlin")) == "2026-11-22 04:00"
    assert time_text(None, UTC) == "-"


def test_counts_and_lists_read_as_sentences() -> None:
    assert count_text(1, "table") == "1 table"
    assert count_text(4210, "table") == "4,210 tables"
    assert joined([]) == ""
    assert joined(["a"]) == "a"
    assert joined(["a", "b"]) == "a and b"
    assert joined(["a", "b", "c"]) == "a, b and c"
