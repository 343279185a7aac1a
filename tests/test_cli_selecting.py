"""From what a person types to one backup, and never to the wrong one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import click
import pytest

from opsd.backup.catalog import Backup
from opsd.backup.manifest import Manifest, Verification, manifest_key
from opsd.backup.naming import subject
from opsd.cli.selecting import Held, matching, newest, one_backup, parse_moment
from opsd.errors import PermanentError

START = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


def held(series: str, *, day: int = 0, ok: bool | None = True, repository: str = "usb") -> Held:
    """A backup that was proven, disproved (False) or never looked at (None)."""
    slot = START + timedelta(days=day)
    verified = () if ok is None else (Verification(level="read_back", at=slot, ok=ok),)
    manifest = Manifest(
        kind="pg_dump",
        subject=series,
        slot=slot,
        run_id="0123456789ab",
        created_at=slot,
        key=f"{series}/data",
        size_bytes=1,
        sha256="00",
        verified=verified,
    )
    backup = Backup(key=manifest_key(series, slot), manifest=manifest, verifications=verified)
    return Held(repository=repository, backup=backup)


SHOP = held("database/main/shop")
PROD = held("database/main/shop-prod")
ODD = held("database/main/it=27s=20odd")
NFS = held("share/nfs")
ALL = (SHOP, PROD, ODD, NFS)


def test_a_subject_fits_itself_and_not_what_begins_like_it() -> None:
    assert matching(ALL, "database/main/shop") == (SHOP,)


def test_the_beginning_of_subjects_ends_at_a_slash() -> None:
    assert matching(ALL, "database/main") == (SHOP, PROD, ODD)
    assert matching(ALL, "database/main/") == (SHOP, PROD, ODD)
    assert matching(ALL, "database/ma") == ()


def test_a_name_is_selected_as_it_is_shown_or_as_it_stands_in_keys() -> None:
    assert matching(ALL, "database/main/it's odd") == (ODD,)
    assert matching(ALL, "database/main/it=27s=20odd") == (ODD,)


def test_a_name_with_a_newline_is_selected_with_it_or_as_it_is_shown() -> None:
    two_lines = held(subject("database", "main", "a\nb"))

    assert matching((*ALL, two_lines), "database/main/a\nb") == (two_lines,)
    assert matching((*ALL, two_lines), "database/main/a b") == (two_lines,)


def test_nothing_typed_fits_everything() -> None:
    assert matching(ALL, "") == ALL


def test_a_key_fits_one_backup_with_and_without_its_suffix() -> None:
    older = held("share/nfs", day=-1)

    assert matching((*ALL, older), older.backup.key) == (older,)
    assert matching((*ALL, older), older.backup.key.removesuffix(".json")) == (older,)


def test_the_newest_good_backup_is_taken() -> None:
    series = (held("share/nfs", day=2, ok=False), held("share/nfs", day=1), NFS)

    assert one_backup(series, "share/nfs").slot == START + timedelta(days=1)


def test_of_two_repositories_the_first_named_one_is_taken() -> None:
    elsewhere = held("share/nfs", repository="offsite")

    assert one_backup((NFS, elsewhere), "share/nfs").repository == "usb"
    assert one_backup((elsewhere, NFS), "share/nfs").repository == "offsite"


def test_several_subjects_are_listed_and_none_is_chosen() -> None:
    with pytest.raises(click.UsageError) as caught:
        one_backup(ALL, "database/main")

    assert "database/main/it's odd, database/main/shop, database/main/shop-prod" in str(
        caught.value
    )


def test_what_does_not_exist_lists_what_does() -> None:
    with pytest.raises(PermanentError, match=r"no backup fits database/main/nope; .*share/nfs"):
        one_backup(ALL, "database/main/nope")


def test_an_empty_repository_says_so() -> None:
    with pytest.raises(PermanentError, match="no backups at all"):
        one_backup((), "share/nfs")


@pytest.mark.parametrize("ok", [False, None])
def test_a_backup_that_is_not_good_is_only_taken_by_its_key(*, ok: bool | None) -> None:
    bad = held("share/nfs", ok=ok)

    with pytest.raises(PermanentError, match="name its key: share/nfs/20261122T030000Z"):
        one_backup((bad,), "share/nfs")
    assert one_backup((bad,), bad.backup.key) == bad


@pytest.mark.parametrize(("minutes", "day"), [(-1, 0), (0, 1), (1, 1)])
def test_a_time_takes_what_was_due_until_then(minutes: int, day: int) -> None:
    series = (held("share/nfs", day=2), held("share/nfs", day=1), NFS)
    until = START + timedelta(days=1, minutes=minutes)

    assert one_backup(series, "share/nfs", until=until).slot == START + timedelta(days=day)


def test_a_time_before_the_first_backup_finds_none() -> None:
    with pytest.raises(PermanentError, match="no backup until 2026-11-21 03:00 UTC"):
        one_backup((NFS,), "share/nfs", until=START - timedelta(days=1))


def test_a_slot_takes_exactly_that_one() -> None:
    series = (held("share/nfs", day=1), NFS)

    assert one_backup(series, "share/nfs", slot="20261122T030000Z") == NFS
    with pytest.raises(PermanentError, match="no backup of slot 20261122T030001Z"):
        one_backup(series, "share/nfs", slot="20261122T030001Z")


def test_the_newest_of_each_series_and_repository_prefers_a_good_one() -> None:
    good, newer_bad = held("share/nfs"), held("share/nfs", day=1, ok=False)
    elsewhere = held("share/nfs", day=-1, repository="offsite")

    assert newest((newer_bad, good, elsewhere, SHOP)) == (good, elsewhere, SHOP)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("20261122T030000Z", START),
        ("2026-11-22 04:00", START),
        ("2026-11-22T03:00:00+00:00", START),
        ("2026-11-22", START.replace(hour=0) - timedelta(hours=1)),
    ],
)
def test_a_time_without_offset_is_the_operators(text: str, moment: datetime) -> None:
    assert parse_moment(text, ZoneInfo("Europe/Berlin")) == moment


def test_what_is_no_time_is_refused_with_an_example() -> None:
    with pytest.raises(click.UsageError, match='yesterday is not a time; write it as "2026'):
        parse_moment("yesterday", UTC)
