"""Each problem that is planted in a real cluster is found, and is gone when it is mended."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from opsd.clients.kube.access import find_cluster
from opsd.clients.kube.client import Kube
from opsd.clients.kube.transport import Transport
from opsd.clock import Deadline, SystemClock
from opsd.upgrade import releases
from opsd.upgrade.assessment import assess
from opsd.upgrade.check import Note, Result, Status
from opsd.upgrade.checks import CHECKS
from opsd.upgrade.facts import Facts
from opsd.upgrade.gather import Wanted, read_cluster
from opsd.upgrade.planning import hops_to
from opsd.upgrade.version import Minor
from tests.rig import controlplane
from tests.rig.controlplane import NEWEST, OLDEST
from tests.rig.kubeadm import (
    CLUSTER_CONFIGURATION,
    COREFILE,
    MASTER,
    NODES,
    SYSTEM,
    WORKERS,
    Kubeadm,
    workload,
)
from tests.rig.kubeapi import Object, eventually, path_of

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]

Planting = Callable[[Kubeadm], AbstractContextManager[None]]
EXPIRED = b"""-----BEGIN CERTIFICATE-----
-----END CERTIFICATE-----
"""


@dataclass(frozen=True)
class Plant:
    """A problem, and what a check says of it."""

    check: str
    status: Status
    evidence: str  #: stands in the worst note
    planting: Planting
    target: str = ""  #: of the hop that it concerns; empty: of the cluster as it is

    def __str__(self) -> str:
        return f"{self.check}-{self.target or 'now'}-{self.evidence[:24]}"


def flagged(component: str, *flags: str) -> Planting:
    return lambda cluster: cluster.instead(cluster.mirror(component, *flags))


def tagged(component: str, image: str) -> Planting:
    return lambda cluster: cluster.instead(cluster.mirror(component, image=image))


def noded(name: str, **more: object) -> Planting:
    return lambda cluster: cluster.instead(cluster.node(name, **more))  # type: ignore[arg-type]


def configured(name: str, **files: object) -> Planting:
    return lambda cluster: cluster.instead(cluster.config_map(name, **files))


def added(make: Callable[[Kubeadm], tuple[Object, ...]]) -> Planting:
    return lambda cluster: cluster.with_(*make(cluster))


def kubeadm_config(**more: object) -> Planting:
    def plant(cluster: Kubeadm) -> AbstractContextManager[None]:
        content = {**CLUSTER_CONFIGURATION, "kubernetesVersion": cluster.version, **more}
        return cluster.instead(cluster.config_map("kubeadm-config", ClusterConfiguration=content))

    return plant


def named(kind: str, name: str, namespace: str = "", *, api: str, **content: object) -> Object:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **content}


def budgeted(*budgets: str, allowed: int) -> Callable[[Kubeadm], tuple[Object, ...]]:
    def make(cluster: Kubeadm) -> tuple[Object, ...]:
        pods = [
            cluster.pod(
                "pg-0", WORKERS[0], namespace="db", owner="StatefulSet", labels={"app": "pg"}
            )
        ]
        status = {
            "disruptionsAllowed": allowed,
            "currentHealthy": 1,
            "desiredHealthy": 1,
            "expectedPods": 1,
        }
        spec = {"selector": {"matchLabels": {"app": "pg"}}, "minAvailable": 1}
        kind = "PodDisruptionBudget"
        made = (
            named(kind, name, "db", api="policy/v1", spec=spec, status=status) for name in budgets
        )
        return (*pods, workload("StatefulSet", "db", "pg", replicas=2, serviceName="pg"), *made)

    return make


def webhook(*, nodes: tuple[str, ...], bundle: bytes = b"", policy: str = "Fail") -> Planting:
    config: Object = {"service": {"namespace": "web", "name": "hook"}}
    if bundle:
        config["caBundle"] = base64.b64encode(bundle).decode()
    hook = {
        "name": "hook.web.test",
        "clientConfig": config,
        "failurePolicy": policy,
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        # Of a kind that nobody writes here, so that the tests themselves are let through.
        "rules": [
            {
                "apiGroups": ["x.test"],
                "apiVersions": ["v1"],
                "resources": ["pods"],
                "operations": ["CREATE"],
            }
        ],
    }
    endpoints = [
        {
            "addresses": [f"10.244.0.{number}"],
            "nodeName": node,
            "conditions": {"ready": True},
        }
        for number, node in enumerate(nodes, start=1)
    ]
    slices = named(
        "EndpointSlice",
        "hook-1",
        "web",
        api="discovery.k8s.io/v1",
        addressType="IPv4",
        endpoints=endpoints,
    )
    slices["metadata"]["labels"] = {"kubernetes.io/service-name": "hook"}
    configuration = named(
        "ValidatingWebhookConfiguration",
        "hook",
        api="admissionregistration.k8s.io/v1",
        webhooks=[hook],
    )
    return added(lambda _: (slices, configuration))


def crd(*versions: str, served: tuple[str, ...]) -> Object:
    schema = {"openAPIV3Schema": {"type": "object"}}
    return named(
        "CustomResourceDefinition",
        "things.ops.test",
        api="apiextensions.k8s.io/v1",
        spec={
            "group": "ops.test",
            "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
            "versions": [
                {
                    "name": version,
                    "served": version in served,
                    "storage": version == versions[-1],
                    "schema": schema,
                }
                for version in versions
            ],
        },
    )


def stored(*versions: str, served: tuple[str, ...]) -> Planting:
    def plant(cluster: Kubeadm) -> AbstractContextManager[None]:
        item = crd("v1alpha1", "v1", served=served)
        return Storing(cluster, item, versions)

    return plant


class Storing:
    """A CRD in whose versions objects may be stored."""

    def __init__(self, cluster: Kubeadm, item: Object, versions: tuple[str, ...]) -> None:
        self.cluster, self.item, self.versions = cluster, item, versions

    def __enter__(self) -> None:
        api, path = self.cluster.api, path_of(self.item)
        api.create(self.item)
        eventually(lambda: api.get(path).get("status", {}).get("storedVersions"))
        api.patch(f"{path}/status", {"status": {"storedVersions": list(self.versions)}})

    def __exit__(self, *_: object) -> None:
        self.cluster.api.delete(path_of(self.item))
        eventually(lambda: self.cluster.api.find(path_of(self.item)) is None or None)


def helm_release(manifest: str) -> Object:
    content = json.dumps({"name": "shop", "manifest": manifest}).encode()
    packed = base64.b64encode(gzip.compress(content))
    secret = named("Secret", "sh.helm.release.v1.shop.v3", "web", api="v1")
    secret["metadata"]["labels"] = {"owner": "helm", "status": "deployed", "name": "shop"}
    release = base64.b64encode(packed).decode()
    return {**secret, "type": "helm.sh/release.v1", "data": {"release": release}}


def api_service() -> Object:
    return named(
        "APIService",
        "v1.gone.test",
        api="apiregistration.k8s.io/v1",
        spec={
            "group": "gone.test",
            "version": "v1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": {"namespace": "web", "name": "gone"},
        },
    )


def local_data(cluster: Kubeadm) -> tuple[Object, ...]:
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "local": {"path": "/data"},
        "nodeAffinity": {
            "required": {
                "nodeSelectorTerms": [
                    {
                        "matchExpressions": [
                            {
                                "key": "kubernetes.io/hostname",
                                "operator": "In",
                                "values": [WORKERS[0]],
                            }
                        ]
                    }
                ]
            }
        },
        "storageClassName": "local",
    }
    volume = named("PersistentVolume", "pv-local", api="v1", spec=spec)
    wanted = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "volumeName": "pv-local",
        "storageClassName": "local",
    }
    claim = named("PersistentVolumeClaim", "data", "db", api="v1", spec=wanted)
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    pod = cluster.pod("pg-0", WORKERS[0], namespace="db", owner="StatefulSet", volumes=volumes)
    owner = workload("StatefulSet", "db", "pg", replicas=2, serviceName="pg")
    return (volume, claim, pod, owner)


def hungry(cluster: Kubeadm) -> tuple[Object, ...]:
    pods = []
    for node in WORKERS:
        pod = cluster.pod(f"big-{node}", node, namespace="web", owner="ReplicaSet")
        pod["spec"]["containers"][0]["resources"] = {"requests": {"memory": "7Gi"}}
        pods.append(pod)
    return tuple(pods)


def picky(cluster: Kubeadm) -> tuple[Object, ...]:
    chosen = {"kubernetes.io/hostname": WORKERS[0]}
    pod = cluster.pod(
        "picky-x", WORKERS[0], namespace="web", owner="ReplicaSet", nodeSelector=chosen
    )
    return (pod,)


def lone(cluster: Kubeadm) -> tuple[Object, ...]:
    own = cluster.pod("shop-1-x", WORKERS[0], namespace="web", owner="ReplicaSet")
    return (workload("ReplicaSet", "web", "shop-1", replicas=1), own)


def with_volume(**source: object) -> Callable[[Kubeadm], tuple[Object, ...]]:
    volumes = ({"name": "code", **source},)
    return lambda _: (workload("Deployment", "web", "site", replicas=0, volumes=volumes),)


def running_image(image: str) -> Callable[[Kubeadm], tuple[Object, ...]]:
    return lambda cluster: (
        cluster.pod("addon-x", WORKERS[0], namespace="web", owner="ReplicaSet", image=image),
    )


def flux_of(version: str) -> Callable[[Kubeadm], tuple[Object, ...]]:
    labels = {"app.kubernetes.io/part-of": "flux", "app.kubernetes.io/version": version}
    return lambda _: (workload("Deployment", "web", "source-controller", labels=labels),)


FAIL, WARN, UNKNOWN = Status.FAIL, Status.WARN, Status.UNKNOWN
OF_OLDEST = (
    Plant("patch-level", WARN, "1.35.9", lambda c: c.with_()),
    Plant("kubelet-skew", FAIL, "newer", noded("rpi3", kubeletVersion="v1.36.0"), "1.36"),
    Plant("kubelet-skew", FAIL, "4 minor", noded("rpi3", kubeletVersion="v1.32.9"), "1.36"),
    Plant("kubelet-skew", FAIL, "4 minor", noded("rpi3", kubeletVersion="v1.33.9"), "1.37"),
    Plant("kubelet-skew", WARN, "finish this", noded("rpi3", kubeletVersion="v1.33.9"), "1.36"),
    Plant("kubelet-skew", UNKNOWN, "no version", noded("rpi3", kubeletVersion="?"), "1.36"),
    Plant(
        "kube-proxy-skew",
        FAIL,
        "rpi2",
        lambda c: c.instead(
            c.pod(
                "kube-proxy-rpi2",
                "rpi2",
                owner="DaemonSet",
                labels={"k8s-app": "kube-proxy"},
                image="kube-proxy:v1.31.0",
            )
        ),
        "1.36",
    ),
    Plant(
        "controller-skew",
        FAIL,
        "2 minor",
        tagged("kube-scheduler", "kube-scheduler:v1.33.1"),
    ),
    Plant(
        "controller-skew",
        FAIL,
        "newer",
        tagged("kube-controller-manager", "kube-controller-manager:v1.36.0"),
    ),
    Plant(
        "controller-skew",
        UNKNOWN,
        "no tag",
        tagged("kube-scheduler", "kube-scheduler@sha256:" + "0" * 64),
    ),
    Plant(
        "api-servers",
        WARN,
        "not finished",
        added(lambda c: (c.mirror("kube-apiserver", image="a:v1.34.9", node="rpi2"),)),
    ),
    Plant(
        "api-servers",
        FAIL,
        "more than one",
        added(lambda c: (c.mirror("kube-apiserver", image="a:v1.33.9", node="rpi2"),)),
    ),
    Plant("etcd-version", WARN, "3.6.11", tagged("etcd", "etcd:3.6.10-0"), "1.37"),
    Plant("etcd-version", FAIL, "more than one", tagged("etcd", "etcd:3.4.30-0"), "1.36"),
    Plant(
        "etcd-version",
        UNKNOWN,
        "outside",
        lambda c: c.without(f"/api/v1/namespaces/{SYSTEM}/pods/etcd-{MASTER}"),
        "1.36",
    ),
    Plant(
        "etcd-flags",
        FAIL,
        "--experimental-initial-corrupt-check",
        flagged("etcd", "--experimental-initial-corrupt-check=true"),
        "1.37",
    ),
    Plant(
        "kubeadm-config",
        FAIL,
        "not there",
        lambda c: c.without(f"/api/v1/namespaces/{SYSTEM}/configmaps/kubeadm-config"),
    ),
    Plant("kubeadm-config", WARN, "1.34.1", kubeadm_config(kubernetesVersion="v1.34.1")),
    Plant("kubeadm-config", FAIL, "no version", kubeadm_config(kubernetesVersion="latest")),
    Plant(
        "kubeadm-api", FAIL, "v1beta3", kubeadm_config(apiVersion="kubeadm.k8s.io/v1beta3"), "1.37"
    ),
    Plant(
        "kubeadm-api", WARN, "v1beta3", kubeadm_config(apiVersion="kubeadm.k8s.io/v1beta3"), "1.36"
    ),
    Plant(
        "kubeadm-gates",
        FAIL,
        "ControlPlaneKubeletLocalMode",
        kubeadm_config(featureGates={"ControlPlaneKubeletLocalMode": True}),
        "1.36",
    ),
    Plant(
        "feature-gates",
        FAIL,
        "HonorPVReclaimPolicy",
        flagged("kube-controller-manager", "--feature-gates=HonorPVReclaimPolicy=true"),
        "1.36",
    ),
    Plant(
        "feature-gates",
        FAIL,
        "SidecarContainers",
        configured("kubelet-config", kubelet={"featureGates": {"SidecarContainers": True}}),
        "1.37",
    ),
    Plant(
        "feature-gates",
        FAIL,
        "locked to false",
        flagged("kube-apiserver", "--feature-gates", "DeclarativeValidationTakeover=true"),
        "1.37",
    ),
    Plant("feature-gates", UNKNOWN, "no YAML", configured("kubelet-config", kubelet="{"), "1.36"),
    Plant(
        "component-flags",
        FAIL,
        "--concurrent-service-syncs",
        flagged("kube-controller-manager", "--concurrent-service-syncs=2"),
        "1.37",
    ),
    Plant(
        "kube-proxy-mode",
        WARN,
        "ipvs",
        configured("kube-proxy", **{"config.conf": {"mode": "ipvs"}}),
        "1.36",
    ),
    Plant(
        "kube-proxy-mode",
        WARN,
        "no mode",
        configured("kube-proxy", **{"config.conf": {"mode": ""}}),
        "1.37",
    ),
    Plant(
        "kubelet-config",
        WARN,
        "eventRecordQPS",
        configured("kubelet-config", kubelet={"eventRecordQPS": 0}),
        "1.37",
    ),
    Plant(
        "container-runtime",
        WARN,
        "2.2.0+",
        noded("rpi4", containerRuntimeVersion="containerd://1.7.24"),
        "1.36",
    ),
    Plant(
        "container-runtime",
        UNKNOWN,
        "rpi4",
        noded("rpi4", containerRuntimeVersion="docker"),
        "1.36",
    ),
    Plant(
        "coredns",
        WARN,
        "1.99.0 is newer",
        lambda c: c.instead(c.dns("v1.99.0")[0]),
        "1.36",
    ),
    Plant("deprecated-apis", WARN, "look again in a day", lambda c: c.with_(), "1.36"),
    Plant(
        "helm-releases",
        FAIL,
        "policy/v1beta1 PodDisruptionBudget shop",
        added(
            lambda _: (
                helm_release(
                    "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: shop\n---\n"
                    "apiVersion: policy/v1beta1\nkind: PodDisruptionBudget\n"
                    "metadata:\n  name: shop\n"
                ),
            )
        ),
        "1.36",
    ),
    Plant(
        "volume-types",
        FAIL,
        "gitRepo",
        added(with_volume(gitRepo={"repository": "https://git.test/site"})),
        "1.36",
    ),
    Plant(
        "volume-types",
        FAIL,
        "example/lvm",
        added(with_volume(flexVolume={"driver": "example/lvm"})),
        "1.36",
    ),
    Plant(
        "external-ips",
        WARN,
        "192.0.2.7",
        added(
            lambda _: (
                named(
                    "Service",
                    "old",
                    "web",
                    api="v1",
                    spec={"externalIPs": ["192.0.2.7"], "ports": [{"port": 80}]},
                ),
            )
        ),
        "1.36",
    ),
    Plant("selinux-mount", WARN, "rpi5", noded("rpi5", osImage="Rocky Linux 10"), "1.37"),
)
OF_ANY = (
    Plant("kernel", WARN, "4.19.97", noded("rpi6", kernelVersion="4.19.97-v7l+")),
    Plant(
        "runtime-support",
        WARN,
        "no fixes since 2025-08-23",
        noded("rpi4", containerRuntimeVersion="containerd://1.6.20"),
    ),
    Plant(
        "corefile",
        WARN,
        "hosts",
        configured("coredns", Corefile=COREFILE.replace("    loop\n", "    hosts\n    loop\n")),
    ),
    Plant(
        "addons",
        WARN,
        "2026-03-24",
        added(running_image("registry.test/ingress-nginx/controller:v1.14.1")),
    ),
    Plant(
        "addons",
        WARN,
        "2025-06-03",
        added(running_image("registry.test/metallb/speaker:v0.14.9")),
    ),
    Plant("crd-versions", FAIL, "v1alpha1", stored("v1alpha1", "v1", served=("v1",))),
    Plant("crd-versions", WARN, "2 versions", stored("v1alpha1", "v1", served=("v1alpha1", "v1"))),
    Plant("api-services", FAIL, "web/gone", added(lambda _: (api_service(),))),
    Plant("flux-support", WARN, "2026-06-30", added(flux_of("v2.6.4"))),
    Plant("node-conditions", FAIL, "not Ready", noded(MASTER, conditions={"Ready": "Unknown"})),
    Plant("node-conditions", WARN, "rpi4", noded("rpi4", conditions={"Ready": "False"})),
    Plant(
        "node-conditions", WARN, "DiskPressure", noded("rpi4", conditions={"DiskPressure": "True"})
    ),
    Plant("cordoned", WARN, "rpi2", noded("rpi2", unschedulable=True)),
    Plant("health-job", WARN, "all cordoned", noded(MASTER, unschedulable=True)),
    Plant("disruption-budgets", FAIL, "no eviction", added(budgeted("pg", allowed=0))),
    Plant("disruption-budgets", FAIL, "2 budgets", added(budgeted("pg", "pg-too", allowed=1))),
    Plant(
        "bare-pods",
        FAIL,
        "nobody makes it again",
        added(lambda c: (c.pod("debug", WORKERS[0], namespace="web"),)),
    ),
    Plant("outages", WARN, "web/shop-1-x", added(lone)),
    Plant("outages", WARN, "lies on one node", added(local_data)),
    Plant(
        "outages",
        WARN,
        "emptyDir",
        added(
            lambda c: (
                c.pod(
                    "cache-x",
                    WORKERS[0],
                    namespace="web",
                    owner="ReplicaSet",
                    volumes=[{"name": "tmp", "emptyDir": {}}],
                ),
            )
        ),
    ),
    Plant("capacity", WARN, "some will wait", added(hungry)),
    Plant("capacity", WARN, "nodeSelector", added(picky)),
    Plant("webhooks", FAIL, "no ready endpoint", webhook(nodes=())),
    Plant("webhooks", WARN, "one node only", webhook(nodes=("rpi2", "rpi2"))),
    Plant("webhook-authorities", UNKNOWN, "caBundle", webhook(nodes=NODES[1:3], bundle=EXPIRED)),
)


@pytest.fixture(scope="module", params=[OLDEST, NEWEST])
def cluster(request: pytest.FixtureRequest) -> Iterator[Kubeadm]:
    with controlplane.running(request.param) as plane:
        yield Kubeadm(plane)


@pytest.fixture(scope="module")
def old(cluster: Kubeadm) -> Kubeadm:
    """The one from which there is somewhere to go."""
    if cluster.control_plane.minor != OLDEST:
        pytest.skip(f"opsd knows nothing newer than {NEWEST}")
    return cluster


def look(cluster: Kubeadm) -> Facts:
    path = cluster.control_plane.kubeconfig()
    transport = Transport(lambda: find_cluster(kubeconfig=path, context=""))
    kube = Kube(transport, deadline=Deadline.after(60.0, SystemClock()))
    return read_cluster(kube, Wanted(), at=datetime.now(UTC))


def result_of(cluster: Kubeadm, check: str, target: str) -> Result:
    facts = look(cluster)
    table = releases.table()
    to = Minor.parse(target) if target else None
    hops = hops_to(facts.server, to, table)
    chosen = [one for one in CHECKS if one.id == check]
    results = assess(facts, hops, chosen, known_as_of=table.asof).results
    return next(one for one in results if one.target in (None, to))


def told(notes: tuple[Note, ...]) -> str:
    return "; ".join(f"{note.where}: {note.value}" for note in notes)


def hold(cluster: Kubeadm, plant: Plant) -> None:
    with plant.planting(cluster):
        planted = result_of(cluster, plant.check, plant.target)
    mended = result_of(cluster, plant.check, plant.target)

    assert planted.status is plant.status, told(planted.notes)
    assert plant.evidence in told(planted.worst)
    assert planted.fix
    if plant.check not in ALWAYS:
        assert mended.status <= Status.PASS, told(mended.notes)


#: Nothing mends these on a control plane that was just started, of a release that is old.
ALWAYS = ("patch-level", "deprecated-apis")


@pytest.mark.parametrize("plant", OF_OLDEST, ids=str)
def test_what_stands_in_the_way_of_a_hop_is_found_until_it_is_mended(
    old: Kubeadm, plant: Plant
) -> None:
    hold(old, plant)


@pytest.mark.parametrize("plant", OF_ANY, ids=str)
def test_what_is_wrong_now_is_found_until_it_is_mended(cluster: Kubeadm, plant: Plant) -> None:
    hold(cluster, plant)


def test_a_cluster_as_kubeadm_leaves_it_passes_every_check_of_the_api(old: Kubeadm) -> None:
    facts = look(old)

    table = releases.table()
    hops = hops_to(facts.server, Minor(1, 37), table)
    elsewhere = (*ALWAYS, "etcd-snapshot")  # which lies in a repository
    chosen = [one for one in CHECKS if not one.probes and one.id not in elsewhere]
    results = assess(facts, hops, chosen, known_as_of=table.asof).results

    bad = {one.check.id: told(one.worst) for one in results if one.status > Status.PASS}
    assert bad == {}


def test_a_webhook_that_was_trusted_until_yesterday_is_in_the_way(cluster: Kubeadm) -> None:
    for expires, status in (
        (timedelta(days=-1), Status.FAIL),
        (timedelta(days=29), Status.WARN),
        (timedelta(days=31), Status.PASS),
    ):
        authority = trustme.CA()
        issued = authority.issue_cert("hook.test", not_after=datetime.now(UTC) + expires)
        bundle = issued.cert_chain_pems[0].bytes()

        with webhook(nodes=NODES[1:3], bundle=bundle)(cluster):
            found = result_of(cluster, "webhook-authorities", "")

        assert found.status is status, told(found.notes)
