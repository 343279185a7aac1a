"""A real Kubernetes control plane on loopback: etcd, API server, controller manager, scheduler.

The binaries are those of KUBEBUILDER_ASSETS or those that `make control-plane` built. TLS, RBAC
and the audit log are on; every component can be stopped, frozen, killed and started again by
itself. Nothing is synced to disk, and everything ends with the test process.

Limits: there are no nodes (tests.rig.kubelet brings them), no network and no DNS.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import urllib3

from tests.rig import kubeaudit, kubecerts, scratch
from tests.rig.kubeapi import ApiError, KubeApi, eventually
from tests.rig.parts import CACHE, missing
from tests.rig.server import HOST, Server, free_port

PINS = Path(__file__).parents[2] / "tools/control-plane"
OLDEST, *_, NEWEST = sorted(
    (path.name for path in PINS.glob("1.*")), key=lambda minor: int(minor.removeprefix("1."))
)
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
SYSTEM_MASTERS = "system:masters"
PROBE_S = 2.0

Flags = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """How fast the cluster notices things: flags of the API server and of the other two."""

    apiserver: Flags = field(default_factory=dict)
    controller_manager: Flags = field(default_factory=dict)
    scheduler: Flags = field(default_factory=dict)
    heartbeat_s: float = 10.0  #: between two renewals of a node's lease
    lease_s: int = 40  #: what a node's lease promises


_FAST_LEADER = {
    "leader-elect-lease-duration": "4s",
    "leader-elect-renew-deadline": "3s",
    "leader-elect-retry-period": "1s",
}
#: As a kubeadm cluster comes: a lost node's pods are Terminating after six minutes.
DEFAULTS = Clock()
#: A lost node's pods are Terminating after about ten seconds. Losing most nodes does not stop
#: evictions, other than with the defaults.
FAST = Clock(
    apiserver={
        "default-not-ready-toleration-seconds": "2",
        "default-unreachable-toleration-seconds": "2",
    },
    controller_manager={
        "node-monitor-period": "1s",
        "node-monitor-grace-period": "6s",
        "node-startup-grace-period": "6s",
        "node-eviction-rate": "10",
        "secondary-node-eviction-rate": "10",
        "large-cluster-size-threshold": "0",
        "kube-api-qps": "500",  # with the default, its forty controllers start in five seconds
        "kube-api-burst": "1000",
        **_FAST_LEADER,
    },
    scheduler=_FAST_LEADER,
    heartbeat_s=1.0,
    lease_s=4,
)
#: The same, but losing most nodes stops evictions, as with the defaults.
FAST_AND_CAREFUL = dataclasses.replace(
    FAST,
    controller_manager={
        flag: value
        for flag, value in FAST.controller_manager.items()
        if flag != "large-cluster-size-threshold"
    },
)


class Component:
    """One process of the control plane, which can be taken away and brought back."""

    def __init__(self, argv: list[str | Path], *, log: Path, ready: Callable[[], bool]) -> None:
        """Keep how to start it; `ready` is asked until it answers yes."""
        self._argv, self._log, self._ready = argv, log, ready
        self._server: Server | None = None

    def launch(self) -> None:
        """Start the process without waiting for it."""
        self._server = Server(self._argv, log=self._log)

    def await_ready(self) -> None:
        """Wait until it works."""
        self.server.await_ready(self._ready)

    def start(self) -> None:
        """Start the process and wait until it works."""
        self.launch()
        self.await_ready()

    def restart(self) -> None:
        """End it in order and start it again."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """End it in order; no harm when it does not run."""
        if self._server:
            self._server.stop()

    def kill(self) -> None:
        """SIGKILL it."""
        self.server.kill()

    def freeze(self) -> None:
        """Stop it: connections stay open, and nothing answers."""
        self.server.freeze()

    def thaw(self) -> None:
        """Undo `freeze`."""
        self.server.thaw()

    @property
    def server(self) -> Server:
        """The process that was started last."""
        assert self._server, "never started"
        return self._server


class ControlPlane:
    """One cluster without nodes, and the admin's access to it."""

    def __init__(self, minor: str, home: Path, *, clock: Clock) -> None:
        """Write certificates and settings below `home` without starting anything."""
        self.minor, self.clock, self.home = minor, clock, home
        self._bin = bin_dir(minor)
        self._port = free_port()
        self._etcd_url = f"http://{HOST}:{free_port()}"
        self.url = f"https://{HOST}:{self._port}"
        self.pki = kubecerts.Pki(home / "pki", host=HOST)
        self.api = self.api_as("admin", group=SYSTEM_MASTERS)
        self.audit = kubeaudit.AuditLog(home / "audit.log")
        (home / "audit-policy.json").write_text(json.dumps(kubeaudit.POLICY))
        self.etcd = self._make_etcd()
        self.apiserver = self._make_apiserver()
        self.controller_manager = self._make_controller_manager()
        self.scheduler = self._make_scheduler()

    @property
    def ca_file(self) -> Path:
        """The authority that signed the API server's certificate."""
        return self.pki.ca_file

    def start(self) -> None:
        """Start everything and wait until it works."""
        self.etcd.launch()
        self.apiserver.launch()  # it waits for etcd by itself
        self.apiserver.await_ready()
        self.controller_manager.launch()
        self.scheduler.launch()
        self.controller_manager.await_ready()
        self.scheduler.await_ready()

    def stop(self) -> None:
        """End everything at once: nothing of it is kept."""
        for component in (self.scheduler, self.controller_manager, self.apiserver, self.etcd):
            with contextlib.suppress(AssertionError):
                component.kill()

    def api_as(self, user: str, *, group: str = "") -> KubeApi:
        """Access with a certificate for a user of your choice."""
        return KubeApi(self.url, ca=self.ca_file, certificate=self.pki.client(user, group=group))

    def api_of(self, namespace: str, service_account: str) -> KubeApi:
        """Access as a ServiceAccount, which must exist."""
        return KubeApi(self.url, ca=self.ca_file, token=self.token(namespace, service_account))

    def token(self, namespace: str, service_account: str, *, lifetime_s: int = 3600) -> str:
        """A token that the API server signed for a ServiceAccount; it lives 600 s or more."""
        where = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        wanted = {"spec": {"expirationSeconds": lifetime_s}}
        token: str = self.api.post(where, wanted)["status"]["token"]
        return token

    def kubeconfig(self, user: str = "admin", *, group: str = SYSTEM_MASTERS) -> Path:
        """A kubeconfig file with a certificate for a user of your choice."""
        certificate, key = self.pki.client(user, group=group)
        credentials = {"client-certificate": str(certificate), "client-key": str(key)}
        return self._write_kubeconfig(user, credentials)

    def kubeconfig_of(self, namespace: str, service_account: str) -> Path:
        """A kubeconfig file with a token of a ServiceAccount, which must exist."""
        token = self.token(namespace, service_account)
        return self._write_kubeconfig(f"{namespace}.{service_account}", {"token": token})

    def namespace(self, name: str) -> str:
        """Create a namespace in which pods can be created at once."""
        self.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        eventually(lambda: self.api.find(f"/api/v1/namespaces/{name}/serviceaccounts/default"))
        return name

    def _write_kubeconfig(self, user: str, credentials: Flags) -> Path:
        path = self.home / f"{user.replace(':', '.')}.kubeconfig"
        cluster = {"server": self.url, "certificate-authority": str(self.ca_file)}
        context = {"cluster": "test", "user": user}
        config = {  # JSON is YAML
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": dict(credentials)}],
            "contexts": [{"name": "test", "context": context}],
            "current-context": "test",
        }
        path.write_text(json.dumps(config, indent=1))
        path.chmod(0o600)
        return path

    def _make_etcd(self) -> Component:
        peer_url = f"http://{HOST}:{free_port()}"
        flags = {
            "data-dir": str(self.home / "etcd"),
            "listen-client-urls": self._etcd_url,
            "advertise-client-urls": self._etcd_url,
            "listen-peer-urls": peer_url,
            "initial-advertise-peer-urls": peer_url,
            "initial-cluster": f"default={peer_url}",
            "unsafe-no-fsync": "true",
            "log-level": "warn",
        }
        return self._component("etcd", flags, f"{self._etcd_url}/health")

    def _make_apiserver(self) -> Component:
        flags = {
            "etcd-servers": self._etcd_url,
            "bind-address": HOST,
            "advertise-address": HOST,
            "secure-port": str(self._port),
            "endpoint-reconciler-type": "none",
            "service-cluster-ip-range": "10.96.0.0/16",
            "authorization-mode": "Node,RBAC",
            "allow-privileged": "true",
            "client-ca-file": str(self.ca_file),
            "tls-cert-file": str(self.pki.server_certificate),
            "tls-private-key-file": str(self.pki.server_key),
            "service-account-issuer": self.url,
            "service-account-key-file": str(self.pki.signing_key),
            "service-account-signing-key-file": str(self.pki.signing_key),
            "audit-policy-file": str(self.home / "audit-policy.json"),
            "audit-log-path": str(self.audit.path),
            "audit-log-mode": "blocking",
            "audit-log-maxsize": "10000",  # MB: no rotation under the tests' eyes
            **self.clock.apiserver,
        }
        return self._component("kube-apiserver", flags, f"{self.url}/readyz")

    def _make_controller_manager(self) -> Component:
        flags = {
            "use-service-account-credentials": "true",
            "service-account-private-key-file": str(self.pki.signing_key),
            "root-ca-file": str(self.ca_file),
            **self.clock.controller_manager,
        }
        return self._controller("kube-controller-manager", flags)

    def _make_scheduler(self) -> Component:
        return self._controller("kube-scheduler", self.clock.scheduler)

    def _controller(self, name: str, flags: Flags) -> Component:
        port = free_port()
        kubeconfig = str(self.kubeconfig(f"system:{name}", group=""))
        own = {
            "kubeconfig": kubeconfig,
            "authentication-kubeconfig": kubeconfig,
            "authorization-kubeconfig": kubeconfig,
            "bind-address": HOST,
            "secure-port": str(port),
            "tls-cert-file": str(self.pki.server_certificate),
            "tls-private-key-file": str(self.pki.server_key),
        }
        return self._component(name, {**own, **flags}, f"https://{HOST}:{port}/healthz")

    def _component(self, name: str, flags: Flags, health_url: str) -> Component:
        return Component(
            [self._bin / name, *(f"--{flag}={value}" for flag, value in flags.items())],
            log=self.home / f"{name}.log",
            ready=lambda: self._is_healthy(health_url),
        )

    def _is_healthy(self, url: str) -> bool:
        with (
            contextlib.suppress(urllib3.exceptions.HTTPError, ApiError),
            urllib3.PoolManager(ca_certs=str(self.ca_file), retries=False) as pool,
        ):
            return pool.request("GET", url, timeout=PROBE_S).status == 200
        return False


def bin_dir(minor: str = NEWEST) -> Path:
    """The directory with the programs of a control plane of this minor release."""
    assets = os.environ.get("KUBEBUILDER_ASSETS", "") if minor == NEWEST else ""
    for place in (*([Path(assets)] if assets else []), CACHE / "control-plane" / minor):
        if all(os.access(place / name, os.X_OK) for name in PROGRAMS):
            return place
    remedy = "make control-plane" if minor == NEWEST else f"make control-plane MINOR={minor}"
    return missing(f"Kubernetes {minor}", remedy, required=minor == NEWEST)


@contextlib.contextmanager
def running(minor: str = NEWEST, *, clock: Clock = FAST) -> Iterator[ControlPlane]:
    """A control plane of its own."""
    bin_dir(minor)
    with scratch.directory("kube") as home:
        control_plane = ControlPlane(minor, home, clock=clock)
        try:
            control_plane.start()
            yield control_plane
        finally:
            control_plane.stop()
