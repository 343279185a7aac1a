"""Read everything that the checks look at: once, in few calls, and without changing anything.

What cannot be read is noted and passed over: it makes the checks over it unknown, not the run
fail. Only an API server that does not answer at all ends it.

Limits: objects are read one list after another, so a cluster that changes meanwhile may be seen
as it never was. Kubelets are asked through the API server, which takes the right to nodes/proxy;
the first one that refuses speaks for all.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import msgspec

from opsd.clients.kube.answers import decoder, read_page
from opsd.clients.kube.errors import Forbidden, NotFound
from opsd.clients.kube.objects import (
    APIService,
    ConfigMap,
    CustomResourceDefinition,
    DaemonSet,
    Deployment,
    EndpointSlice,
    HelmRelease,
    Kustomization,
    MutatingWebhookConfiguration,
    Node,
    Object,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    PodDisruptionBudget,
    ReplicaSet,
    Secret,
    Service,
    StatefulSet,
    ValidatingWebhookConfiguration,
    condition,
)
from opsd.errors import OpsdError
from opsd.upgrade import helm
from opsd.upgrade.facts import (
    DeprecatedUse,
    Facts,
    KubeletMetrics,
    Leftover,
    ServerMetrics,
    WebhookConfiguration,
)
from opsd.upgrade.metrics import Sample, samples
from opsd.upgrade.reading import Reading
from opsd.upgrade.releases import RemovedApi
from opsd.upgrade.version import Minor, Version

if TYPE_CHECKING:
    from opsd.clients.kube.client import Kube

ObjectT = TypeVar("ObjectT", bound=Object)
T = TypeVar("T")

SYSTEM = "kube-system"
CONFIG_MAPS = ("kubeadm-config", "kubelet-config", "kube-proxy", "coredns")
MOST_KUBELETS = 50  # asked for their metrics: one call each
RIGHTS = "give opsd the rights of docs/upgrades.md#rights"

_DEPRECATED = "apiserver_requested_deprecated_apis"
_REQUESTS = "apiserver_request_total"
_STARTED = "process_start_time_seconds"
_CGROUP = "kubelet_cgroup_version"
_LOSING = "cri_losing_support"
_LEFTOVERS_NAMED = 5


class _GroupVersion(msgspec.Struct, rename="camel"):
    group_version: str = ""


class _Group(msgspec.Struct):
    versions: tuple[_GroupVersion, ...] = ()


class _Groups(msgspec.Struct):
    groups: tuple[_Group, ...] = ()


class _Any(Object):
    """An object of a kind that opsd does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is read besides what every check needs."""

    removed_apis: tuple[RemovedApi, ...] = ()  #: whose leftovers are looked for
    helm: bool = True  #: Helm keeps its releases in Secrets


def read_cluster(kube: Kube, wanted: Wanted, *, at: datetime) -> Facts:
    """What the API says.

    Raises:
        ConfigError, TransientError, PermanentError: the API server does not answer at all.
        DeadlineExceeded: likewise.
    """
    server = Version.parse(kube.version())
    reader = _Reader(kube)
    nodes = reader.all_of(Node)
    served = reader.served()
    return Facts(
        at=at,
        server=server,
        nodes=nodes,
        pods=reader.all_of(Pod),
        replica_sets=reader.all_of(ReplicaSet),
        deployments=reader.all_of(Deployment),
        daemon_sets=reader.all_of(DaemonSet),
        stateful_sets=reader.all_of(StatefulSet),
        services=reader.all_of(Service),
        budgets=reader.all_of(PodDisruptionBudget),
        volumes=reader.all_of(PersistentVolume),
        claims=reader.all_of(PersistentVolumeClaim),
        crds=reader.all_of(CustomResourceDefinition),
        webhooks=reader.webhooks(),
        slices=reader.all_of(EndpointSlice),
        api_services=reader.all_of(APIService),
        kustomizations=reader.all_if_served(Kustomization, served),
        flux_releases=reader.all_if_served(HelmRelease, served),
        helm_releases=reader.helm_releases() if wanted.helm else _left_out("helm"),
        config_maps=reader.config_maps(),
        ready=reader.text("/readyz?verbose"),
        live=reader.text("/livez?verbose"),
        served=served,
        leftovers=reader.leftovers(wanted.removed_apis, served),
        metrics=reader.metrics(),
        kubelets=reader.kubelets(nodes),
    )


def _left_out(setting: str) -> Reading[T]:
    return Reading.failed("configuration", f"left out by jobs.upgrade-readiness.{setting}")


class _Reader:
    """Reads one thing after another; what cannot be read is a reading, too."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    def all_of(self, kind: type[ObjectT]) -> Reading[tuple[ObjectT, ...]]:
        return _attempt(kind.resource.nouns, lambda: tuple(self._kube.list(kind)))

    def all_if_served(
        self, kind: type[ObjectT], served: Reading[frozenset[str]]
    ) -> Reading[tuple[ObjectT, ...]]:
        """Objects of an operator, which need not be installed."""
        if served.problem is None and kind.resource.group_version not in served.value:
            return Reading.of(())
        return self.all_of(kind)

    def webhooks(self) -> Reading[tuple[WebhookConfiguration, ...]]:
        def read() -> tuple[WebhookConfiguration, ...]:
            validating = self._kube.list(ValidatingWebhookConfiguration)
            return (*validating, *self._kube.list(MutatingWebhookConfiguration))

        return _attempt("webhook configurations", read)

    def config_maps(self) -> Reading[Mapping[str, ConfigMap | None]]:
        def read() -> Mapping[str, ConfigMap | None]:
            return {
                name: self._kube.find(ConfigMap, name, namespace=SYSTEM) for name in CONFIG_MAPS
            }

        return _attempt(f"configmaps in {SYSTEM}", read)

    def helm_releases(self) -> Reading[tuple[helm.Release, ...]]:
        def read() -> tuple[helm.Release, ...]:
            fields = f"type={helm.TYPE}"
            secrets = self._kube.list(Secret, labels=helm.LABELS, fields=fields)
            return tuple(helm.release_of(secret) for secret in secrets)

        return _attempt("secrets of Helm", read, fix=f"{RIGHTS}, or set helm = false")

    def text(self, path: str) -> Reading[str]:
        return _attempt(path, lambda: self._kube.raw(path).decode("utf-8", "backslashreplace"))

    def served(self) -> Reading[frozenset[str]]:
        def read() -> frozenset[str]:
            groups = decoder(_Groups).decode(self._kube.raw("/apis")).groups
            return frozenset(one.group_version for group in groups for one in group.versions)

        return _attempt("/apis", read)

    def leftovers(
        self, removed: Iterable[RemovedApi], served: Reading[frozenset[str]]
    ) -> Reading[tuple[Leftover, ...]]:
        def read() -> tuple[Leftover, ...]:
            found = (
                self._leftover(api.group_version, resource)
                for api in removed
                if api.group_version in served.value
                for resource in api.resources
            )
            return tuple(one for one in found if one is not None)

        if served.problem is not None:
            return Reading(None, served.problem)
        return _attempt("objects of removed APIs", read)

    def _leftover(self, group_version: str, resource: str) -> Leftover | None:
        path = f"/apis/{group_version}/{resource}?limit={_LEFTOVERS_NAMED}"
        try:
            items = read_page(_Any, self._kube.raw(path), f"list {resource}").items or ()
        except NotFound:
            return None
        names = tuple("/".join(filter(None, (one.namespace, one.name))) for one in items)
        if not names:
            return None
        return Leftover(group_version=group_version, resource=resource, names=names)

    def metrics(self) -> Reading[ServerMetrics]:
        names = frozenset((_DEPRECATED, _REQUESTS, _STARTED))

        def read() -> ServerMetrics:
            return server_metrics(samples(self._kube.lines("/metrics"), names))

        return _attempt("/metrics of the API server", read)

    def kubelets(self, nodes: Reading[tuple[Node, ...]]) -> Mapping[str, Reading[KubeletMetrics]]:
        if nodes.problem is not None:
            return {}
        found: dict[str, Reading[KubeletMetrics]] = {}
        for node in nodes.value[:MOST_KUBELETS]:
            found[node.name] = reading = self._kubelet(node)
            if reading.problem is not None and reading.problem.is_forbidden:
                return {one.name: reading for one in nodes.value}
        return found

    def _kubelet(self, node: Node) -> Reading[KubeletMetrics]:
        where = f"metrics of the kubelet on {node.name}"
        ready = condition(node.status.conditions, "Ready")
        if ready is not None and ready.status != "True":  # asking it would take ten seconds
            return Reading.failed(where, "the node is not Ready")

        def read() -> KubeletMetrics:
            lines = self._kube.lines(f"/api/v1/nodes/{node.name}/proxy/metrics")
            return kubelet_metrics(samples(lines, (_CGROUP, _LOSING)))

        return _attempt(where, read)


def server_metrics(found: Iterable[Sample]) -> ServerMetrics:
    """What is in these lines of the API server."""
    deprecated: list[DeprecatedUse] = []
    requests: Counter[tuple[str, str, str]] = Counter()
    started_at = None
    for one in found:
        labels = one.labels
        key = (labels.get("group", ""), labels.get("version", ""), labels.get("resource", ""))
        if one.name == _STARTED:
            started_at = datetime.fromtimestamp(one.value, UTC)
        elif one.name == _REQUESTS:
            requests[key] += int(one.value)
        elif one.value:
            deprecated.append(_deprecated(key, labels))
    wanted = {(use.group, use.version, use.resource.partition("/")[0]) for use in deprecated}
    counted = {key: number for key, number in requests.items() if key in wanted}
    return ServerMetrics(started_at=started_at, deprecated=tuple(deprecated), requests=counted)


def kubelet_metrics(found: Iterable[Sample]) -> KubeletMetrics:
    """What is in these lines of a kubelet."""
    metrics = KubeletMetrics()
    for one in found:
        if one.name == _CGROUP:
            metrics = dataclasses.replace(metrics, cgroup=int(one.value))
        elif one.value and (minor := _minor(one.labels.get("version", ""))):
            metrics = dataclasses.replace(metrics, losing_support=minor)
    return metrics


def _deprecated(key: tuple[str, str, str], labels: Mapping[str, str]) -> DeprecatedUse:
    group, version, resource = key
    below = labels.get("subresource", "")
    return DeprecatedUse(
        group=group,
        version=version,
        resource=f"{resource}/{below}" if below else resource,
        removed_in=_minor(labels.get("removed_release", "")),
    )


def _minor(text: str) -> Minor | None:
    try:
        return Version.parse(text).minor
    except ValueError:
        return None


def _attempt(where: str, read: Callable[[], T], *, fix: str = "") -> Reading[T]:
    try:
        return Reading.of(read())
    except Forbidden as exc:
        return Reading.failed(where, str(exc), fix=fix or RIGHTS, is_forbidden=True)
    except (OpsdError, ValueError, msgspec.DecodeError) as exc:
        return Reading.failed(where, str(exc), fix=fix)
