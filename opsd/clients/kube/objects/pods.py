"""Pods: what they are to run and mount, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar

from opsd.clients.kube.objects.base import (
    Condition,
    LocalReference,
    Metadata,
    Object,
    Outline,
    Resource,
    Struct,
)


class KeyReference(Struct):
    """One key of a Secret or a ConfigMap of the pod's namespace."""

    name: str = ""
    key: str = ""
    optional: bool = False


class EnvSource(Struct):
    """Where the value of a variable comes from."""

    secret_key_ref: KeyReference | None = None
    config_map_key_ref: KeyReference | None = None


class EnvVar(Struct):
    """One variable. Its value may be a password: printing it shows the name only."""

    name: str = ""
    value: str = ""  #: may refer to variables before it: ``$(NAME)``
    value_from: EnvSource | None = None

    def __repr__(self) -> str:
        return f"EnvVar({self.name!r})"


class EnvFrom(Struct):
    """All keys of a Secret or a ConfigMap as variables."""

    prefix: str = ""
    secret_ref: LocalReference | None = None
    config_map_ref: LocalReference | None = None


class ContainerPort(Struct):
    """A port that the container says it listens on."""

    name: str = ""
    container_port: int = 0
    protocol: str = "TCP"


class VolumeMount(Struct):
    """Where a volume of the pod is in the container."""

    name: str = ""
    mount_path: str = ""
    sub_path: str = ""
    read_only: bool = False


class Resources(Struct):
    """How much it is given for sure, and at most: quantities such as ``250m`` and ``1Gi``."""

    requests: Mapping[str, str] = {}
    limits: Mapping[str, str] = {}


class Container(Struct):
    """One container as it was asked for."""

    name: str = ""
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFrom, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()
    resources: Resources = Resources()
    restart_policy: str = ""  #: of an init container: ``Always`` makes it a sidecar


class ClaimSource(Struct):
    """A claim of the pod's namespace."""

    claim_name: str = ""
    read_only: bool = False


class NfsSource(Struct):
    """A directory of an NFS server."""

    server: str = ""
    path: str = ""
    read_only: bool = False


class KeyToPath(Struct):
    """One key as a file of another name."""

    key: str = ""
    path: str = ""


class SecretSource(Struct):
    """A Secret as files."""

    secret_name: str = ""
    items: tuple[KeyToPath, ...] = ()  #: none: every key, under its own name


class HostPath(Struct):
    """A path of the node."""

    path: str = ""


class EmptyDir(Struct):
    """A directory that ends with the pod."""

    medium: str = ""  #: empty: the node's disk; ``Memory``


class FlexVolume(Struct):
    """A volume of a driver that is a program on the node."""

    driver: str = ""


class ProjectedSecret(LocalReference):
    """A Secret as some of the files."""

    items: tuple[KeyToPath, ...] = ()  #: none: every key, under its own name


class ProjectedItem(Struct):
    """One of several sources whose files lie in one directory."""

    secret: ProjectedSecret | None = None
    config_map: LocalReference | None = None


class Projected(Struct):
    """Files of several sources."""

    sources: tuple[ProjectedItem, ...] = ()


class Volume(Struct):
    """A volume of the pod; at most one of the sources is set, or none that opsd looks at."""

    name: str = ""
    persistent_volume_claim: ClaimSource | None = None
    nfs: NfsSource | None = None
    secret: SecretSource | None = None
    config_map: LocalReference | None = None
    projected: Projected | None = None
    host_path: HostPath | None = None
    empty_dir: EmptyDir | None = None
    downward_api: Struct | None = None
    git_repo: Struct | None = None
    flex_volume: FlexVolume | None = None
    ephemeral: Struct | None = None  #: its claim is named POD-VOLUME


class Toleration(Struct):
    """A taint that the pod bears; without a key and with ``Exists``: every taint."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""  #: empty: every effect
    toleration_seconds: int | None = None  #: None: for ever


class PodSpec(Struct):
    """What the pod is to be; also in templates."""

    node_name: str = ""  #: empty: not scheduled yet
    node_selector: Mapping[str, str] = {}
    service_account_name: str = ""
    host_network: bool = False
    priority_class_name: str = ""
    restart_policy: str = ""
    termination_grace_period_seconds: int | None = None
    tolerations: tuple[Toleration, ...] = ()
    init_containers: tuple[Container, ...] = ()
    containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()


class Waiting(Struct):
    """Why a container does not run yet."""

    reason: str = ""
    message: str = ""


class Running(Struct):
    """Since when a container runs."""

    started_at: datetime | None = None


class Terminated(Struct):
    """How a container ended."""

    reason: str = ""
    message: str = ""
    exit_code: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None


class ContainerState(Struct):
    """Exactly one is set; none means waiting."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(Struct):
    """What the kubelet last said about a container; frozen when its node is silent."""

    name: str = ""
    image: str = ""
    image_id: str = ""
    container_id: str = ""
    ready: bool = False
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodStatus(Struct):
    """What the kubelet last said about the pod."""

    phase: str = ""  #: Pending, Running, Succeeded, Failed, Unknown
    reason: str = ""
    message: str = ""
    pod_ip: str = ""
    host_ip: str = ""
    start_time: datetime | None = None
    conditions: tuple[Condition, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(Object):
    """A pod."""

    resource: ClassVar[Resource] = Resource("v1", "pods", "Pod")

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class PodOutline(Outline):
    """Which pod it is, and whether it is being deleted."""

    resource: ClassVar[Resource] = Pod.resource


class PodTemplate(Struct):
    """The pods that a controller makes."""

    metadata: Metadata = Metadata()
    spec: PodSpec = PodSpec()
