"""Do the kubelets of the target still talk to the container runtime and the kernel here?

The claim that 1.35 was the last release for containerd 1.x is wrong: its end was put off to 1.38.
The kubelet itself says which release will not take its runtime, and that is what counts.

Limits: without the right to ask kubelets for their metrics the version of containerd has to do.
"""

from __future__ import annotations

from collections.abc import Iterator

from opsd.clients.kube.objects import Node
from opsd.upgrade import releases
from opsd.upgrade.check import Check, Hop, Note, Scope, each, failed, passed, unknown, warned
from opsd.upgrade.facts import Facts
from opsd.upgrade.support import support
from opsd.upgrade.version import Minor, Version

CONTAINERD = "containerd"
SPEAKS_RUNTIME_CONFIG = Minor(2, 0)  # containerd from here on; KEP-4033
NEEDS_RUNTIME_CONFIG = Minor(1, 38)  # kubelets from here on; PR 139121


def _runtime(facts: Facts, hop: Hop) -> Iterator[Note]:
    def judge(node: Node) -> Iterator[Note]:
        said = node.status.node_info.container_runtime_version
        name, _, version = said.partition("://")
        where = f"{name or 'runtime'} on {node.name}"
        reading = facts.kubelets.get(node.name)
        metrics = reading.value if reading is not None and reading.problem is None else None
        losing = metrics.losing_support if metrics else None
        try:
            parsed = Version.parse(version)
        except ValueError:
            yield unknown(where, f"the node says {said!r}")
            return
        if losing is not None and hop.target >= losing:
            yield failed(where, f"{parsed}: its kubelet says that {losing} will not take it")
        elif name == CONTAINERD:
            yield from _containerd(where, parsed, hop)
        else:
            yield passed(where, str(parsed))

    yield from each(facts.nodes.value, judge)


def _containerd(where: str, version: Version, hop: Hop) -> Iterator[Note]:
    if version.minor < SPEAKS_RUNTIME_CONFIG and hop.target >= NEEDS_RUNTIME_CONFIG:
        yield failed(where, f"{version}: kubelets from {NEEDS_RUNTIME_CONFIG} on want 2.0")
        return
    target = releases.table().of(hop.target)
    least = target.containerd if target else {}
    known = least.get(version.minor)
    newest = max(least, default=version.minor)
    told = " or ".join(f"{one}+" for one in least.values())
    if (known and version < known) or (known is None and version.minor < newest):
        yield warned(where, f"{version}; recommended for {hop.target}: {told}")
    else:
        yield passed(where, str(version))


def _runtime_life(facts: Facts, _: Hop) -> Iterator[Note]:
    def judge(node: Node) -> Iterator[Note]:
        name, _, version = node.status.node_info.container_runtime_version.partition("://")
        where = f"{name or 'runtime'} on {node.name}"
        yield support(where, name, version, today=facts.at.date())

    yield from each(facts.nodes.value, judge)


def _kernel(facts: Facts, _: Hop) -> Iterator[Note]:
    table = releases.table()

    def judge(node: Node) -> Iterator[Note]:
        kernel = node.status.node_info.kernel_version
        where = f"kernel on {node.name}"
        try:
            minor = Version.parse(kernel).minor
        except ValueError:
            yield unknown(where, f"the node says {kernel!r}")
            return
        if minor in table.kernels or minor >= table.kernel_from:
            yield passed(where, kernel)
        else:
            told = ", ".join(str(one) for one in table.kernels)
            yield warned(where, f"{kernel}; tested are {told} and {table.kernel_from} or newer")

    yield from each(facts.nodes.value, judge)


CHECKS = (
    Check(
        id="container-runtime",
        title="The next kubelet takes the container runtime of every node",
        row=16,
        judge=_runtime,
        fix="upgrade containerd on these nodes first; 2.x reads the configuration of 1.7",
        source="containerd RELEASES.md; KEP-4033; kubernetes/kubernetes PR 139121",
        scope=Scope.HOP,
    ),
    Check(
        id="runtime-support",
        title="The container runtime of every node gets fixes",
        row=16,
        judge=_runtime_life,
        fix="upgrade the container runtime on these nodes",
        source="containerd RELEASES.md",
    ),
    Check(
        id="kernel",
        title="Every node has a kernel that Kubernetes is tested with",
        row=17,
        judge=_kernel,
        fix="upgrade the operating system of these nodes",
        source="kubernetes/system-validators; kubernetes/kubernetes PR 131919",
    ),
)
