"""Which hops lead to a release, and which release is out of reach."""

from __future__ import annotations

from datetime import timedelta

import pytest

from opsd.errors import ConfigError
from opsd.upgrade import releases
from opsd.upgrade.planning import hops_to
from opsd.upgrade.version import Minor, Version

TABLE = releases.table()


def way(server: str, target: str = "") -> list[tuple[str, bool]]:
    wanted = Minor.parse(target) if target else None
    return [(str(hop), hop.is_first) for hop in hops_to(Version.parse(server), wanted, TABLE)]


def test_the_next_minor_release_is_the_target_if_none_is_named() -> None:
    assert way("1.35.4") == [("1.35 → 1.36", True)]


def test_each_minor_release_on_the_way_is_a_hop() -> None:
    assert way("1.34.2", "1.37") == [
        ("1.34 → 1.35", True),
        ("1.35 → 1.36", False),
        ("1.36 → 1.37", False),
    ]


def test_there_is_no_hop_beyond_what_opsd_knows() -> None:
    assert way(f"{TABLE.newest}.1") == []


@pytest.mark.parametrize("target", ["1.34", "1.35"])
def test_a_cluster_does_not_go_down_or_stay(target: str) -> None:
    with pytest.raises(ConfigError, match=r"runs 1\.35\.4 already"):
        way("1.35.4", target)


@pytest.mark.parametrize("target", ["1.38", "2.0"])
def test_a_release_that_opsd_does_not_know_is_refused_with_what_it_knows(target: str) -> None:
    with pytest.raises(ConfigError, match=r"knows what changes in 1\.34 to 1\.37"):
        way("1.35.4", target)


def test_a_release_too_old_for_the_table_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"knows what changes in 1\.34"):
        way("1.31.0", "1.34")


def test_the_table_grows_old() -> None:
    assert not TABLE.is_old(TABLE.asof + timedelta(days=150))
    assert TABLE.is_old(TABLE.asof + timedelta(days=151))


@pytest.mark.parametrize(
    ("api_version", "kind", "gone"),
    [
        ("policy/v1beta1", "PodDisruptionBudget", "1.25"),
        ("apps/v1beta2", "Anything", "1.16"),
        ("networking.k8s.io/v1beta1", "Ingress", "1.22"),
        ("networking.k8s.io/v1beta1", "ServiceCIDR", "1.37"),
    ],
)
def test_a_kind_that_is_gone_is_known(api_version: str, kind: str, gone: str) -> None:
    assert TABLE.removed_at(api_version, kind) == Minor.parse(gone)


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("v1", "Service"),
        ("policy/v1", "PodDisruptionBudget"),
        ("coordination.k8s.io/v1beta1", "LeaseCandidate"),
    ],
)
def test_a_kind_that_is_served_is_not_gone_though_its_version_once_was(
    api_version: str, kind: str
) -> None:
    assert TABLE.removed_at(api_version, kind) is None
