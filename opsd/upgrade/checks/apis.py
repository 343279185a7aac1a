"""Is anything used or stored in a version of the API that the target does not have?

The API server counts who asks for what will go: that beats looking through manifests, which finds
what nobody applies and misses what programs ask for.

Limits: it counts since it was started; what is used once a month may not have been seen yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

from opsd.clients.kube.objects import CustomResourceDefinition
from opsd.upgrade import helm, releases
from opsd.upgrade.check import (
    Check,
    Hop,
    Note,
    Scope,
    each,
    failed,
    passed,
    skipped,
    unknown,
    warned,
)
from opsd.upgrade.facts import DeprecatedUse, Facts
from opsd.upgrade.reading import Unreadable
from opsd.upgrade.version import Minor

_SAYS_NO = re.compile(r": 5\d\d\b")
SEEN_ENOUGH = timedelta(days=1)


def _deprecated(facts: Facts, hop: Hop) -> Iterator[Note]:
    metrics = facts.metrics.value
    for use in metrics.deprecated:
        key = (use.group, use.version, use.resource.partition("/")[0])
        times = metrics.requests.get(key, 0)
        yield _use(use, times, hop.target)
    where = "/metrics of the API server"
    since = metrics.started_at
    if since is None:
        yield warned(where, "it does not say since when it counts")
    elif facts.at - since < SEEN_ENOUGH:
        yield warned(
            where,
            f"it counts since {since:%Y-%m-%d %H:%M} UTC only: look again in a day",
            fix="let the API server run for a day or more, then look again",
        )
    else:
        yield passed(where, f"counted since {since:%Y-%m-%d %H:%M} UTC")


def _use(use: DeprecatedUse, times: int, target: Minor) -> Note:
    told = f"asked for {times} times" if times else "asked for"
    if use.removed_in is None:
        return passed(str(use), f"{told}; deprecated, and no release removes it yet")
    if use.removed_in <= target:
        return failed(str(use), f"{told}, and gone in {use.removed_in}")
    return warned(str(use), f"{told}; {use.removed_in} removes it")


def _leftovers(facts: Facts, hop: Hop) -> Iterator[Note]:
    known = releases.table().of(hop.target)
    gone = {api.group_version for api in known.apis} if known else set()
    found = [one for one in facts.leftovers.value if one.group_version in gone]
    for one in found:
        names = ", ".join(one.names)
        yield failed(f"{one.resource}.{one.group_version}", f"gone in {hop.target}: {names}")
    if not found:
        yield passed("stored objects", f"none of what {hop.target} removes")


def _crds(facts: Facts, _: Hop) -> Iterator[Note]:
    crds = facts.crds.value
    if not crds:
        yield skipped("customresourcedefinitions", "there is none")
        return

    def judge(crd: CustomResourceDefinition) -> Iterator[Note]:
        versions = {version.name: version for version in crd.spec.versions}
        stored = crd.status.stored_versions
        lost = [one for one in stored if one not in versions or not versions[one].served]
        if lost:
            yield failed(str(crd), f"objects may be stored as {', '.join(lost)}, not served")
        elif len(stored) > 1:
            yield warned(
                str(crd), f"objects may be stored in {len(stored)} versions: {', '.join(stored)}"
            )

    yield from each(crds, judge)
    yield passed("customresourcedefinitions", f"{len(crds)} looked at")


def _helm(facts: Facts, hop: Hop) -> Iterator[Note]:
    problem = facts.helm_releases.problem
    if problem is not None and problem.where == "configuration":
        yield skipped("Helm", problem.why)
        return
    found = facts.helm_releases.value

    def judge(release: helm.Release) -> Iterator[Note]:
        table = releases.table()
        for kept in release.objects:
            gone = table.removed_at(kept.api_version, kept.kind)
            if gone and gone <= hop.target:
                where = f"helm release {release.namespace}/{release.name}"
                yield failed(where, f"{kept} is gone since {gone}")

    yield from each(found, judge)
    yield passed("Helm", f"{len(found)} releases")


def _flux(facts: Facts, hop: Hop) -> Iterator[Note]:
    table = releases.table()
    seen = 0
    for one in facts.kustomizations.value:
        for entry in one.status.inventory.entries if one.status.inventory else ():
            _, _, rest = entry.id.partition("_")
            _, _, rest = rest.partition("_")
            group, _, kind = rest.partition("_")
            seen += 1
            version = f"{group}/{entry.version}" if group else entry.version
            gone = table.removed_at(version, kind)
            if gone and gone <= hop.target:
                yield failed(str(one), f"applies {version} {kind}, gone since {gone}")
    if seen:
        yield passed("Flux", f"{seen} objects")
    else:
        yield skipped("Flux", "it applies nothing here")


def _api_services(facts: Facts, _: Hop) -> Iterator[Note]:
    for one in facts.api_services.value:
        state = next((c for c in one.status.conditions if c.type == "Available"), None)
        if one.spec.service is None:
            continue
        if state is None or state.status != "True":
            why = state.message if state else "nobody says whether it answers"
            service = f"{one.spec.service.namespace}/{one.spec.service.name}"
            yield failed(str(one), f"service {service} does not answer: {why}")
        else:
            yield passed(str(one), "answers")
    yield passed("apiservices", f"{len(facts.api_services.value)} looked at")


def _health(facts: Facts, _: Hop) -> Iterator[Note]:
    for path, reading in (("/readyz", facts.ready), ("/livez", facts.live)):
        try:
            lines = reading.value.splitlines()
        except Unreadable as exc:
            # With 5xx it is this very question to which the API server says no.
            tell = failed if _SAYS_NO.search(exc.why) else unknown
            yield tell(path, exc.why, fix=exc.fix)
            continue
        bad = [line for line in lines if line.startswith("[-]")]
        if bad:
            yield failed(path, ", ".join(bad))
        else:
            yield passed(path, f"{sum(line.startswith('[+]') for line in lines)} checks passed")


CHECKS = (
    Check(
        id="deprecated-apis",
        title="Nobody asks for an API that the target does not have",
        row=19,
        judge=_deprecated,
        fix="find who asks (the audit log, kubectl get --show-managed-fields), and upgrade it",
        source="metric apiserver_requested_deprecated_apis",
        scope=Scope.HOP,
    ),
    Check(
        id="removed-objects",
        title="No object is stored in a version that the target removes",
        row=24,
        judge=_leftovers,
        fix="delete these objects before the upgrade, or move them to the next version",
        source="release notes of the target",
        scope=Scope.HOP,
    ),
    Check(
        id="crd-versions",
        title="Every CRD serves all versions in which its objects are stored",
        row=21,
        judge=_crds,
        fix="write every object once (kubectl get -o json | kubectl replace -f -), then take the "
        "old version out of status.storedVersions",
        source="kubernetes.io, Versions in CustomResourceDefinitions",
    ),
    Check(
        id="helm-releases",
        title="No release of Helm holds a kind that the target does not have",
        row=22,
        judge=_helm,
        fix="upgrade the chart before the cluster; if it is too late, the helm-mapkubeapis plugin",
        source="helm.sh, Deprecated Kubernetes APIs",
        scope=Scope.HOP,
    ),
    Check(
        id="flux-inventory",
        title="Flux applies no kind that the target does not have",
        row=23,
        judge=_flux,
        fix="change the manifests in Git before the upgrade",
        source="fluxcd.io, status.inventory of Kustomizations",
        scope=Scope.HOP,
    ),
    Check(
        id="api-services",
        title="Every API that another program serves answers",
        row=40,
        judge=_api_services,
        fix="mend the service behind it, or delete the APIService if its program is gone: "
        "discovery and the deletion of namespaces hang on it",
        source="kubernetes.io, Kubernetes API Aggregation Layer",
    ),
    Check(
        id="api-health",
        title="The API server is well",
        row=41,
        judge=_health,
        fix="kubectl get --raw '/readyz?verbose'; mend what begins with [-]",
        source="kubernetes.io, Kubernetes API health endpoints",
        unknown_blocks=True,
    ),
)
