"""A node is kept from one file server: can its pods still write to what others will use? Pure.

What only a node has (an empty directory, its copy of a ConfigMap) nobody else will write to. All
else counts as written to, unless it is on that server or mounted for reading only.

Limits: what a pod does over the network, such as to a database elsewhere, is not seen here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from opsd.clients.kube.objects import Container, PersistentVolume, Pod, Volume
from opsd.cluster.nodeloss.survey import where_is

NFS_PORT_OPTION = "port=2049"
_RDMA = ("rdma", "proto=rdma", "proto=rdma6")  # mount options: it passes no rules of the kernel

Claims = Mapping[tuple[str, str], PersistentVolume]  # by namespace and name of the claim


def by_claim(volumes: Iterable[PersistentVolume]) -> Claims:
    """Those that are bound."""
    return {
        (one.spec.claim_ref.namespace, one.spec.claim_ref.name): one
        for one in volumes
        if one.spec.claim_ref
    }


def uncut(pod: Pod, claims: Claims, servers: frozenset[str]) -> Iterator[str]:
    """Where a pod can still write when its node is kept from these servers.

    Args:
        pod: on the node.
        claims: what is bound in its namespace.
        servers: names of one file server, as volumes have them.
    """
    for volume in pod.spec.volumes:
        if _is_written(pod, volume) and (place := _uncut(pod, volume, claims, servers)):
            yield place


def _uncut(pod: Pod, volume: Volume, claims: Claims, servers: frozenset[str]) -> str:
    """Where it lies; empty when it is cut, or is nobody else's."""
    if claim := _claim(pod, volume):
        bound = claims.get((pod.namespace, claim))
        return _of_volume(claim, bound, servers)
    if volume.nfs:
        is_cut = volume.nfs.server in servers
        return "" if is_cut else f"nfs {volume.nfs.server}:{volume.nfs.path}"
    if volume.empty_dir is not None or _is_copy(volume):
        return ""
    return f"{volume.host_path.path} of the node" if volume.host_path else volume.name


def _of_volume(claim: str, bound: PersistentVolume | None, servers: frozenset[str]) -> str:
    if bound is None:
        return f"{claim}, whose volume is not known"
    spec = bound.spec
    if _is_read_only(bound):
        return ""
    options = [word.strip() for option in spec.mount_options for word in option.split(",")]
    ports = [one for one in options if one.startswith("port=") and one != NFS_PORT_OPTION]
    if ports or any(one in _RDMA for one in options):
        return f"{claim}, mounted with {', '.join(ports) or 'RDMA'}"
    if _server_of(bound) in servers:
        return ""
    return f"{claim} on {where_is(bound) or bound.name}"


def _claim(pod: Pod, volume: Volume) -> str:
    if volume.persistent_volume_claim:
        return volume.persistent_volume_claim.claim_name
    return f"{pod.name}-{volume.name}" if volume.ephemeral is not None else ""


def _is_copy(volume: Volume) -> bool:
    return any((volume.config_map, volume.secret, volume.projected, volume.downward_api))


def _is_written(pod: Pod, volume: Volume) -> bool:
    """Whether anything mounts it for writing; what nothing mounts may be used otherwise."""
    claim = volume.persistent_volume_claim
    if (claim and claim.read_only) or (volume.nfs and volume.nfs.read_only):
        return False
    containers: tuple[Container, ...] = (*pod.spec.init_containers, *pod.spec.containers)
    mounts = [one for each in containers for one in each.volume_mounts if one.name == volume.name]
    return not mounts or not all(one.read_only for one in mounts)


def _is_read_only(bound: PersistentVolume) -> bool:
    spec = bound.spec
    return bool((spec.nfs and spec.nfs.read_only) or (spec.csi and spec.csi.read_only))


def _server_of(bound: PersistentVolume) -> str:
    """Of NFS, in the tree or by its driver; empty for everything else."""
    spec = bound.spec
    if spec.nfs:
        return spec.nfs.server
    is_nfs = spec.csi is not None and spec.csi.driver == "nfs.csi.k8s.io"
    return spec.csi.volume_attributes.get("server", "") if spec.csi and is_nfs else ""
