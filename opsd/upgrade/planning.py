"""Which steps lead to a release: kubeadm takes one minor release at a time. Pure."""

from __future__ import annotations

from opsd.errors import ConfigError
from opsd.upgrade.check import Hop
from opsd.upgrade.releases import Releases
from opsd.upgrade.version import Minor, Version


def hops_to(server: Version, target: Minor | None, releases: Releases) -> tuple[Hop, ...]:
    """The hops from the release that runs to the target; none when there is nothing newer.

    Args:
        server: of the API server.
        target: None: the next minor release, if opsd knows it.
        releases: what opsd knows.

    Raises:
        ConfigError: opsd does not know the target, or the cluster is there already.
    """
    start = server.minor
    if target is None:
        target = start.next
        if releases.of(target) is None:
            return ()
    if target <= start:
        raise ConfigError(
            f"upgrade to {target}: the cluster runs {server} already; kubeadm goes up only"
        )
    wanted = [Minor(start.major, number) for number in range(start.number + 1, target.number + 1)]
    missing = [minor for minor in wanted if releases.of(minor) is None]
    if missing or target.major != start.major:
        oldest, newest = min(releases.by_minor), releases.newest
        raise ConfigError(
            f"upgrade {server} to {target}: this version of opsd knows what changes in {oldest} "
            f"to {newest}, as of {releases.asof}; ask a newer one"
        )
    return tuple(
        Hop(start=minor.previous, target=minor, is_first=minor.previous == start)
        for minor in wanted
    )
