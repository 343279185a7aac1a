"""Objects that tests put into a cluster, with no more in them than the API demands.

Every workload runs on the nodes of one pool: those with the label ``pool``, which the fixture
``workers`` sets, so that tests can share a control plane.
"""

from __future__ import annotations

from tests.rig.kubeapi import Object

IMAGE = "registry.test/app:1"


def pod_spec(pool: str = "", *, image: str = IMAGE, grace_s: int = 30, **more: object) -> Object:
    """What a pod or a template of one says about its only container and its place."""
    spec: Object = {
        "containers": [{"name": "app", "image": image}],
        "terminationGracePeriodSeconds": grace_s,
    }
    if pool:
        spec["nodeSelector"] = {"pool": pool}
    return spec | more


def pod(namespace: str, name: str, spec: Object) -> Object:
    """A pod that nobody replaces."""
    metadata = {"namespace": namespace, "name": name}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def deployment(namespace: str, name: str, spec: Object, *, replicas: int = 1) -> Object:
    """Replicas that a lost one is replaced of at once."""
    return _app("Deployment", namespace, name, spec, replicas=replicas)


def stateful_set(namespace: str, name: str, spec: Object, *, replicas: int = 1) -> Object:
    """Replicas whose names block their replacement while the object of the old one stays."""
    return _app("StatefulSet", namespace, name, spec, replicas=replicas, serviceName=name)


def daemon_set(namespace: str, name: str, spec: Object) -> Object:
    """One pod on each node of the pool, which tolerates that its node is lost."""
    return _app("DaemonSet", namespace, name, spec)


def job(namespace: str, name: str, spec: Object) -> Object:
    """A job whose pods carry a finalizer of the job controller."""
    template = {"spec": spec | {"restartPolicy": "Never"}}
    metadata = {"namespace": namespace, "name": name}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {"template": template},
    }


def service_account(namespace: str, name: str) -> Object:
    """An identity without any right of its own."""
    metadata = {"namespace": namespace, "name": name}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}


def claim_on_nfs(namespace: str, name: str, *, server: str, path: str) -> tuple[Object, Object]:
    """A volume on a file server, and the claim that gets it."""
    volume_name, size = f"{namespace}-{name}", {"storage": "1Gi"}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume_name},
        "spec": {
            "capacity": size,
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "nfs": {"server": server, "path": path},
            "claimRef": {"namespace": namespace, "name": name},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "",
            "volumeName": volume_name,
            "resources": {"requests": size},
        },
    }
    return volume, claim


def _app(kind: str, namespace: str, name: str, spec: Object, **more: object) -> Object:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
            **more,
        },
    }
