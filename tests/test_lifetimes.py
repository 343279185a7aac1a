from __future__ import annotations

from datetime import date, timedelta

import pytest

from opsd.hosts import lifetimes
from opsd.hosts.lifetimes import OLD_AFTER, Lifetime, Phase


@pytest.mark.parametrize(
    ("product", "version", "release", "eol"),
    [
        ("debian", "12", "12", date(2026, 7, 11)),
        ("ubuntu", "24.04", "24.04", date(2029, 5, 31)),
        ("alpine", "3.21.6", "3.21", date(2026, 11, 1)),
        ("rocky", "9.6", "9", date(2032, 5, 31)),
        ("kubernetes", "v1.35.3", "1.35", date(2027, 2, 28)),
        ("kubernetes", "1.34.10-1.1", "1.34", date(2026, 10, 27)),
        ("containerd", "1.7.24~ds1-6+deb13u1+b4", "1.7", date(2026, 9, 30)),
        ("postgresql", "14.19 (Debian 14.19-1)", "14", date(2026, 11, 12)),
        ("etcd", "3.5.26-0", "3.5", date(2027, 7, 8)),
        ("ingress-nginx", "v1.12.1", "*", date(2026, 3, 24)),
        ("metallb", "0.15.3", "0.15", date(2026, 5, 20)),
    ],
)
def test_a_version_of_any_spelling_leads_to_its_release(
    product: str, version: str, release: str, eol: date
) -> None:
    found = lifetimes.table().of(product, version)

    assert found is not None
    assert (found.release, found.eol, found.at_latest) == (release, eol, False)


@pytest.mark.parametrize(
    ("product", "version"),
    [
        ("arch", "rolling"),
        ("debian", ""),
        ("debian", "trixie/sid"),
        ("debian", "14"),
        ("kubernetes", "1.99.0"),
        ("kubernetes", "1.3"),
        ("nothing-we-know", "1.0"),
    ],
)
def test_what_is_not_in_the_table_is_unknown(product: str, version: str) -> None:
    found = lifetimes.table().of(product, version)

    assert found is None or found.at_latest


def test_an_unlisted_release_ended_no_later_than_the_next_listed_one() -> None:
    table = lifetimes.table()

    between, before = table.of("flux", "2.4.0"), table.of("kubernetes", "1.9.11")

    assert between is not None
    assert before is not None
    assert (between.release, between.eol, between.at_latest) == ("2.6", date(2026, 6, 30), True)
    assert (before.release, before.at_latest) == ("1.28", True)


def test_releases_that_do_not_end_in_their_order_are_not_guessed() -> None:
    assert lifetimes.table().of("ubuntu", "21.10") is None


@pytest.mark.parametrize(
    ("today", "phase"),
    [
        (date(2026, 7, 11), Phase.SUPPORTED),
        (date(2026, 7, 12), Phase.EXTENDED),
        (date(2028, 6, 30), Phase.EXTENDED),
        (date(2028, 7, 1), Phase.ENDED),
    ],
)
def test_debian_12_goes_from_its_own_support_over_long_term_support_to_its_end(
    today: date, phase: Phase
) -> None:
    found = lifetimes.table().of("debian", "12")

    assert found is not None
    assert found.phase(today) is phase


@pytest.mark.parametrize(
    ("today", "phase"),
    [
        (date(2026, 12, 27), Phase.SUPPORTED),
        (date(2026, 12, 28), Phase.MAINTENANCE),
        (date(2027, 2, 28), Phase.MAINTENANCE),
        (date(2027, 3, 1), Phase.ENDED),
    ],
)
def test_kubernetes_goes_through_maintenance_to_its_end(today: date, phase: Phase) -> None:
    found = lifetimes.table().of("kubernetes", "1.35.3")

    assert found is not None
    assert found.phase(today) is phase


def test_support_that_must_be_bought_is_not_assumed() -> None:
    found = lifetimes.table().of("ubuntu", "20.04")

    assert found is not None
    assert found.phase(date(2026, 1, 1)) is Phase.ENDED
    assert found.by_subscription == date(2030, 4, 2)


def test_the_table_is_old_after_half_a_year() -> None:
    table = lifetimes.table()

    assert not table.is_old(table.asof + OLD_AFTER)
    assert table.is_old(table.asof + OLD_AFTER + timedelta(days=1))


def test_every_row_of_the_table_makes_sense() -> None:
    rows = [row for rows in lifetimes.table().releases.values() for row in rows.values()]

    odd = [row for row in rows if not _makes_sense(row)]

    assert len(rows) > 80
    assert odd == []


def _makes_sense(row: Lifetime) -> bool:
    later = [day for day in (row.extended, row.by_subscription) if day]
    is_in_order = all(day > row.eol for day in later)
    return is_in_order and (row.maintenance is None or row.maintenance < row.eol)


def test_a_table_with_an_unknown_column_is_refused() -> None:
    with pytest.raises(TypeError):
        lifetimes.parse('asof = 2026-01-01\n[x.releases]\n"1" = { eol = 2026-01-01, eos = 1 }\n')
