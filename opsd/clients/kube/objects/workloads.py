"""What makes pods and replaces them, and the PostgreSQL of the two common operators."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar

import msgspec

from opsd.clients.kube.objects.base import (
    Condition,
    LabelSelector,
    LocalReference,
    Object,
    Resource,
    Struct,
)
from opsd.clients.kube.objects.pods import PodTemplate
from opsd.clients.kube.objects.storage import PersistentVolumeClaim


class ReplicaStatus(Struct):
    """How many of the wanted pods there are."""

    replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    terminating_replicas: int = 0
    conditions: tuple[Condition, ...] = ()


class ClaimRetention(Struct):
    """What becomes of the claims; ``Retain`` or ``Delete``."""

    when_deleted: str = "Retain"
    when_scaled: str = "Retain"


class StatefulSetSpec(Struct):
    """Which pods there should be."""

    replicas: int = 1
    service_name: str = ""
    selector: LabelSelector = LabelSelector()
    template: PodTemplate = PodTemplate()
    volume_claim_templates: tuple[PersistentVolumeClaim, ...] = ()
    persistent_volume_claim_retention_policy: ClaimRetention = ClaimRetention()


class StatefulSet(Object):
    """Pods whose names come again: a lost one blocks its successor."""

    resource: ClassVar[Resource] = Resource("apps/v1", "statefulsets", "StatefulSet")

    spec: StatefulSetSpec = StatefulSetSpec()
    status: ReplicaStatus = ReplicaStatus()


class DeploymentStrategy(Struct):
    """How pods are exchanged."""

    type: str = ""  #: RollingUpdate, Recreate


class DeploymentSpec(Struct):
    """Which pods there should be."""

    replicas: int = 1
    selector: LabelSelector = LabelSelector()
    template: PodTemplate = PodTemplate()
    strategy: DeploymentStrategy = DeploymentStrategy()


class Deployment(Object):
    """Pods of which a lost one is replaced at once."""

    resource: ClassVar[Resource] = Resource("apps/v1", "deployments", "Deployment")

    spec: DeploymentSpec = DeploymentSpec()
    status: ReplicaStatus = ReplicaStatus()


class ReplicaSet(Object):
    """One revision of a Deployment."""

    resource: ClassVar[Resource] = Resource("apps/v1", "replicasets", "ReplicaSet")

    spec: DeploymentSpec = DeploymentSpec()
    status: ReplicaStatus = ReplicaStatus()


class DaemonSetSpec(Struct):
    """Which pod each node should have."""

    selector: LabelSelector = LabelSelector()
    template: PodTemplate = PodTemplate()


class DaemonSetStatus(Struct):
    """How many nodes have it."""

    desired_number_scheduled: int = 0
    current_number_scheduled: int = 0
    number_ready: int = 0


class DaemonSet(Object):
    """One pod on each node."""

    resource: ClassVar[Resource] = Resource("apps/v1", "daemonsets", "DaemonSet")

    spec: DaemonSetSpec = DaemonSetSpec()
    status: DaemonSetStatus = DaemonSetStatus()


class JobSpec(Struct):
    """What should end well."""

    completions: int | None = None
    suspend: bool = False
    pod_replacement_policy: str = ""  #: TerminatingOrFailed, Failed
    template: PodTemplate = PodTemplate()


class JobStatus(Struct):
    """How far it is."""

    active: int = 0
    succeeded: int = 0
    failed: int = 0
    start_time: datetime | None = None
    completion_time: datetime | None = None
    conditions: tuple[Condition, ...] = ()


class Job(Object):
    """Pods that are to end."""

    resource: ClassVar[Resource] = Resource("batch/v1", "jobs", "Job")

    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()


class JobTemplate(Struct):
    """The Jobs that a CronJob makes."""

    spec: JobSpec = JobSpec()


class CronJobSpec(Struct):
    """When a Job is made."""

    schedule: str = ""
    suspend: bool = False
    job_template: JobTemplate = JobTemplate()


class CronJob(Object):
    """Jobs by the clock."""

    resource: ClassVar[Resource] = Resource("batch/v1", "cronjobs", "CronJob")

    spec: CronJobSpec = CronJobSpec()


class PodDisruptionBudgetSpec(Struct):
    """How many pods must or may be."""

    min_available: int | str | None = None
    max_unavailable: int | str | None = None
    selector: LabelSelector | None = None  #: None: no pod
    unhealthy_pod_eviction_policy: str = ""  #: AlwaysAllow; empty: IfHealthyBudget


class PodDisruptionBudgetStatus(Struct):
    """How many may go now."""

    disruptions_allowed: int = 0
    current_healthy: int = 0
    desired_healthy: int = 0
    expected_pods: int = 0


class PodDisruptionBudget(Object):
    """What evictions must leave."""

    resource: ClassVar[Resource] = Resource(
        "policy/v1", "poddisruptionbudgets", "PodDisruptionBudget"
    )

    spec: PodDisruptionBudgetSpec = PodDisruptionBudgetSpec()
    status: PodDisruptionBudgetStatus = PodDisruptionBudgetStatus()


class InitDb(Struct):
    """What a new cluster of CloudNativePG begins with."""

    database: str = ""
    owner: str = ""
    secret: LocalReference | None = None


class Bootstrap(Struct):
    """Where a new cluster of CloudNativePG comes from."""

    initdb: InitDb | None = None


class CnpgStorage(Struct):
    """What CloudNativePG claims for each instance."""

    size: str = ""
    storage_class: str = ""


class CnpgSpec(Struct):
    """Source: CloudNativePG, API reference, ``ClusterSpec``."""

    instances: int = 1
    image_name: str = ""
    superuser_secret: LocalReference | None = None
    enable_superuser_access: bool = False
    bootstrap: Bootstrap | None = None
    storage: CnpgStorage = CnpgStorage()


class CnpgStatus(Struct):
    """Source: CloudNativePG, API reference, ``ClusterStatus``."""

    phase: str = ""
    instances: int = 0
    ready_instances: int = 0
    current_primary: str = ""
    write_service: str = ""  #: NAME-rw
    read_service: str = ""


class CnpgCluster(Object):
    """A PostgreSQL of CloudNativePG."""

    resource: ClassVar[Resource] = Resource("postgresql.cnpg.io/v1", "clusters", "Cluster")

    spec: CnpgSpec = CnpgSpec()
    status: CnpgStatus = CnpgStatus()


class ZalandoVersion(Struct):
    """Which PostgreSQL."""

    version: str = ""


class ZalandoVolume(Struct):
    """What is claimed for each instance."""

    size: str = ""
    storage_class: str = ""


class ZalandoSpec(Struct):
    """Source: postgres-operator, docs/reference/cluster_manifest.md."""

    team_id: str = ""
    number_of_instances: int = 0
    postgresql: ZalandoVersion = ZalandoVersion()
    databases: Mapping[str, str] = {}  #: name -> owner
    users: Mapping[str, tuple[str, ...]] = {}  #: name -> role attributes
    volume: ZalandoVolume = ZalandoVolume()
    enable_logical_backup: bool = False


class ZalandoStatus(Struct):
    """How it is."""

    phase: str = msgspec.field(default="", name="PostgresClusterStatus")  #: Running


class ZalandoPostgresql(Object):
    """A PostgreSQL of Zalando's operator."""

    resource: ClassVar[Resource] = Resource("acid.zalan.do/v1", "postgresqls", "postgresql")

    spec: ZalandoSpec = ZalandoSpec()
    status: ZalandoStatus = ZalandoStatus()
