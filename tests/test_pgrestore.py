from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from opsd.backup.postgres.restore import compared
from opsd.backup.postgres.source import DumpSource

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)


def source(**changed: Any) -> DumpSource:
    known = {
        "server": "main",
        "server_version": "18.6",
        "client_version": "18.6",
        "database": "app",
        "owner": "postgres",
        "snapshot_at": NOW,
    }
    return DumpSource(**{**known, **changed})


def test_equal_counts_match() -> None:
    promised = source(rows={"public.a": (5, True)}, large_objects=2)

    result = compared(promised, {"public.a": (5, True)}, large_objects=2)

    assert result.matches
    assert result.compared == 1


def test_every_difference_is_told() -> None:
    promised = source(rows={"public.a": (5, True), "public.gone": (0, True)}, large_objects=2)

    result = compared(promised, {"public.a": (4, True), "public.new": (1, True)}, large_objects=1)

    assert result.differences == (
        "public.a: 4 rows, 5 promised",
        "public.gone: missing",
        "public.new: not in the manifest",
        "1 large objects, 2 promised",
    )
    assert not result.matches


def test_an_estimate_is_never_compared_and_is_told() -> None:
    promised = source(rows={"public.a": (5, True), "public.b": (7, False)})

    result = compared(promised, {"public.a": (5, True), "public.b": (900, True)}, large_objects=0)

    assert result.matches
    assert result.compared == 1
    assert result.notes == ("public.b: was not counted when it was dumped",)


def test_estimates_alone_prove_nothing() -> None:
    promised = source(rows={"public.b": (7, False)})

    assert not compared(promised, {"public.b": (7, True)}, large_objects=0).matches


def test_what_a_partial_dump_lacks_is_told() -> None:
    promised = source(rows={"public.a": (5, True)}, partial=("12 large objects",))

    result = compared(promised, {"public.a": (5, True)}, large_objects=0)

    assert result.notes == ("the dump lacks 12 large objects",)


def test_an_empty_database_promises_nothing_and_keeps_it() -> None:
    assert compared(source(), {}, large_objects=0).matches
