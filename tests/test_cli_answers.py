"""`opsd ack` and `opsd silence`: what a person answers to a message."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsd.backup.naming import quote
from opsd.cli.expiry import LONGEST
from opsd.incidents import Silence
from opsd.model import Severity
from tests.rig.typed import Desk, ago, finding, run, tell

ODD = f"database/main/{quote('it is odd')}"


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    """With three findings open, of which one is information."""
    desk = Desk(tmp_path, monkeypatch, capsys)
    desk.record(
        run(
            "a1",
            findings=(
                finding("share/nfs"),
                finding("share/media", check="nfs.hangs", severity=Severity.WARNING),
                finding("share/note", severity=Severity.INFO),
                finding(ODD, check="postgres.dump_failed"),
            ),
        )
    )
    return desk


def acknowledged(desk: Desk) -> set[str]:
    return {subject for subject, one in desk.incidents().items() if one.acknowledged}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["share/nfs"], {"share/nfs"}),
        (["share"], {"share/nfs", "share/media"}),
        (["share/"], {"share/nfs", "share/media"}),
        (["share/*"], {"share/nfs", "share/media"}),
        (["share/?fs"], {"share/nfs"}),
        (["database/main/it is odd"], {ODD}),
        ([ODD], {ODD}),
        (["*", "--check", "nfs.h*"], {"share/media"}),
        (["--all", "--check", "nfs.*"], {"share/nfs", "share/media"}),
        (["--all"], {"share/nfs", "share/media", ODD}),
    ],
)
def test_what_is_acknowledged(desk: Desk, arguments: list[str], expected: set[str]) -> None:
    ended = desk.type("ack", *arguments)

    assert ended.status == 0
    assert acknowledged(desk) == expected
    assert ended.lines[-1].startswith(f"{len(expected)} finding")


def test_it_is_said_what_was_acknowledged_and_why_is_kept(desk: Desk) -> None:
    ended = desk.type("ack", "share/nfs", "--reason", "Ann is on it")

    assert ended.lines == [
        "✓ share/nfs: share/nfs cannot be read",
        "1 finding acknowledged: no reminders until worse, or over and back.",
    ]
    assert desk.incidents()["share/nfs"].acknowledged.reason == "Ann is on it"


@pytest.mark.parametrize(
    ("subject", "hint"),
    [
        ("share/nsf", 'did you mean "share/nfs"?'),
        ("zzz", "known: database/main/it is odd, share/media, share/nfs"),
        ("share/note", "only information"),
    ],
)
def test_what_fits_nothing_gets_a_hint(desk: Desk, subject: str, hint: str) -> None:
    ended = desk.type("ack", subject)

    assert ended.status == 1
    assert hint in ended.err
    assert acknowledged(desk) == set()


def test_a_check_that_fits_nothing_is_named(desk: Desk) -> None:
    ended = desk.type("ack", "share/nfs", "--check", "nfs.hangs")

    assert ended.status == 1
    assert "share/nfs: no open finding of nfs.hangs; " in ended.err


def test_nothing_open_is_no_error_for_all_and_one_for_a_name(desk: Desk) -> None:
    desk.record(run("a2"))

    everything, named = desk.type("ack", "--all"), desk.type("ack", "share/nfs")

    assert everything.status == 0
    assert everything.lines == ["Nothing is open."]
    assert named.status == 1
    assert "nothing is open" in named.err


@pytest.mark.parametrize("arguments", [[], ["share/nfs", "--all"]])
def test_either_a_name_or_all(desk: Desk, arguments: list[str]) -> None:
    ended = desk.type("ack", *arguments)

    assert ended.status == 2
    assert "--all" in ended.err


def test_an_acknowledgement_shows_until_the_finding_is_over_and_back(desk: Desk) -> None:
    desk.type("ack", "share/nfs", "--reason", "Ann is on it")

    during = desk.json("findings")["findings"]
    text = desk.type("findings").out
    desk.record(run("a2"), run("a3", findings=(finding("share/nfs"),)))
    after = desk.json("findings")["findings"]

    assert [one["subject"] for one in during if one["acknowledged"]] == ["share/nfs"]
    assert "· acknowledged" in text
    assert ": Ann is on it" in text
    assert [one["acknowledged"] for one in after] == [None]


def test_without_a_target_an_acknowledgement_shows_and_ends_likewise(desk: Desk) -> None:
    desk.configure(without='[[alerts.targets]]\nname = "phone"\nurl = "env:OPSD_TEST_URL"\n')
    desk.type("ack", "share/nfs")

    during = desk.json("findings")["findings"]
    with desk.state() as state:
        quiet = lambda alerts, _open, _at: (alerts, ())  # noqa: E731 - what is wired then
        state.record(run("a2"), tell=quiet)
        state.record(run("a3", findings=(finding("share/nfs"),)), tell=quiet)
    after = desk.json("findings")["findings"]

    assert [one["subject"] for one in during if one["acknowledged"]] == ["share/nfs"]
    assert [one["acknowledged"] for one in after] == [None]


def test_ack_prints_one_object(desk: Desk) -> None:
    answer = desk.json("ack", "share/nfs")

    assert [one["subject"] for one in answer["acknowledged"]] == ["share/nfs"]


def silenced(desk: Desk, *arguments: str, reason: str = "new disk") -> str:
    """The id of a new silence."""
    answer = desk.json("silence", *arguments, "--for", "2h", "--reason", reason)
    found: str = answer["silences"][-1]["id"]
    return found


def test_a_silence_says_what_it_hides_and_how_to_end_it(desk: Desk) -> None:
    ended = desk.type("silence", "share/*", "--for", "2h", "--reason", "new disk")

    assert ended.status == 0
    assert ended.lines[0].startswith("share/*: silenced until ")
    assert ended.lines[0].endswith(" (in 2 h)")
    assert ended.lines[1:3] == ["  new disk", "  hides 2 findings now: share/nfs and share/media"]
    assert ended.lines[3].startswith("  > opsd silence --end ")


def test_silences_are_listed_with_what_they_hide_now(desk: Desk) -> None:
    silenced(desk, "share/nfs")
    silenced(desk, "--check", "nfs.*")

    alone, listed = desk.json("silence"), desk.json("silence", "--list")

    assert alone == listed
    hidden = [[one["subject"] for one in silence["hides"]] for silence in alone["silences"]]
    assert hidden == [["share/nfs"], ["share/nfs", "share/media"]]
    assert [one["subject"] for one in alone["silences"]] == ["share/nfs", "*"]


def test_a_silence_keeps_a_subject_as_it_is_stored(desk: Desk) -> None:
    silenced(desk, "database/main/it is odd")

    [one] = desk.json("silence")["silences"]

    assert one["subject"] == ODD
    assert one["hides"]
    assert "database/main/it is odd: silenced" in desk.type("silence").out


@pytest.mark.parametrize(
    ("subject", "hint"),
    [("share", "did you mean 'share/*'?"), ("share/nsf", 'did you mean "share/nfs"?')],
)
def test_a_silence_that_hides_nothing_gets_a_hint(desk: Desk, subject: str, hint: str) -> None:
    ended = desk.type("silence", subject, "--for", "2h", "--reason", "x")

    assert ended.status == 0
    assert f"hides nothing that is open now; {hint}" in ended.out


def test_a_pattern_that_hides_nothing_yet_is_fine(desk: Desk) -> None:
    ended = desk.type("silence", "node/*", "--for", "2h", "--reason", "x")

    assert "hides nothing that is open now\n" in ended.out


def test_when_a_silence_is_ended_what_is_still_wrong_is_told(desk: Desk) -> None:
    silence_id = silenced(desk, "share/new")
    with desk.state() as state:
        found = [finding("share/new")]
        state.observe("nfs-backup", findings=found, seen=[], tell=tell)
        hidden = len(state.undelivered())

        ended = desk.type("silence", "--end", silence_id)

        told = [entry.message.title for entry in state.undelivered()[hidden:]]
    assert ended.lines == [f"Silence {silence_id} is ended; what is still wrong is told now."]
    assert desk.json("silence")["silences"] == []
    assert len(told) == 1
    assert "share/new cannot be read" in told[0]


@pytest.mark.parametrize("hours_left", [-1, 1])
def test_a_silence_that_has_run_out_is_neither_listed_nor_a_mark(
    desk: Desk, hours_left: int
) -> None:
    old = Silence(
        id="abcdef",
        check="*",
        subject="share/nfs",
        since=ago(hours=3),
        until=ago(hours=-hours_left),
        reason="x",
    )
    with desk.state() as state:
        state.tell(lambda alerts, _open, _at: (replace(alerts, silences=(old,)), ()))

    listed = desk.json("silence")["silences"]
    marked = [one for one in desk.json("findings")["findings"] if one["silenced"]]

    assert len(listed) == len(marked) == (1 if hours_left > 0 else 0)


@pytest.mark.parametrize("there", [0, 2])
def test_an_unknown_silence_is_told_with_those_there_are(desk: Desk, there: int) -> None:
    known = sorted(silenced(desk, f"share/{number}") for number in range(there))

    ended = desk.type("silence", "--end", "000000")

    assert ended.status == 1
    assert (" and ".join(known) if known else "there is none") in ended.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["share/nfs"], "--for and --reason are missing"),
        (["share/nfs", "--for", "2h"], "--reason is missing"),
        (["share/nfs", "--for", "2h", "--reason", " "], "--reason is missing"),
        (["share/nfs", "--reason", "x"], "--for is missing"),
        (["--for", "2h", "--reason", "x"], "either SUBJECT"),
        (["share/nfs", "--list"], "either SUBJECT"),
        (["share/nfs", "--end", "abc"], "either SUBJECT"),
        (["share/nfs", "--for", "2 hours", "--reason", "x"], "a duration with a unit"),
        (["share/nfs", "--for", "0s", "--reason", "x"], "more than nothing"),
        (["share/nfs", "--for", "99999999999w", "--reason", "x"], "--for"),
    ],
)
def test_a_silence_needs_an_end_and_a_reason(desk: Desk, arguments: list[str], told: str) -> None:
    ended = desk.type("silence", *arguments)

    assert ended.status == 2
    assert told in ended.err
    assert desk.json("silence")["silences"] == []


@pytest.mark.parametrize("days", [LONGEST.days, LONGEST.days + 1])
def test_no_silence_is_longer_than_ninety_days(desk: Desk, days: int) -> None:
    ended = desk.type("silence", "share/nfs", "--for", f"{days}d", "--reason", "x")

    assert ended.status == (0 if days == LONGEST.days else 2)


def test_the_end_of_a_silence_is_counted_from_now(desk: Desk) -> None:
    before = datetime.now(UTC)
    silenced(desk, "share/nfs")

    [one] = desk.json("silence")["silences"]

    until = datetime.fromisoformat(one["until"])
    assert before <= until - timedelta(hours=2) <= datetime.now(UTC)


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_nothing_is_wider_than_the_terminal(desk: Desk, columns: int) -> None:
    silenced(desk, "share/*", reason="a reason of many words " * 8)

    for arguments in (["silence"], ["ack", "--all"], ["findings"], ["status"]):
        seen = desk.see(*arguments, columns=columns)

        assert max(len(line) for line in seen.lines) <= columns
        assert seen.lines


def test_hostile_names_and_reasons_are_printed_harmless(desk: Desk) -> None:
    desk.record(run("a2", findings=(finding("share/a\x1b[31m\n\u202e\udcff"),)))
    silenced(desk, "share/*", reason="\x1b[31m\u202e\udcff")

    for arguments in (["ack", "share/*"], ["silence"], ["findings"], ["ack", "\x1b\udcff"]):
        ended = desk.type(*arguments)

        assert not {"\x1b", "\u202e"} & set(ended.out + ended.err)
