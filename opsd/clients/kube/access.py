"""How opsd gets into a cluster: as the pod it runs in, or with a kubeconfig file.

Kubeconfig files are read by the ``kubernetes`` package, with everything that they may ask for
(exec plugins, OIDC); it costs a third of a second and is loaded for them only.

Limits: an exec plugin that hangs is ended with the run, not before. Of proxies, those that
speak plain HTTP to opsd (``http://``) are known; in the cluster there is none.
"""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from opsd.clients.kube.cluster import Cluster, TlsFiles, TokenFile
from opsd.errors import ConfigError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def find_cluster(
    *, kubeconfig: Path | None = None, context: str = "", mount: Path = SERVICE_ACCOUNT
) -> Cluster:
    """The configured cluster, else the one that opsd runs in, else that of the user's files.

    Args:
        kubeconfig: a file; None: in the cluster if there is one, else KUBECONFIG, else
            ``~/.kube/config``.
        context: a context of the file; empty: its current one.
        mount: where a pod finds its ServiceAccount.

    Raises:
        ConfigError: there is none, or the file is wrong.
    """
    if kubeconfig is None and not context and runs_in_cluster(mount):
        return in_cluster(mount)
    paths = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG") or "~/.kube/config"
    if not any(Path(one).expanduser().is_file() for one in paths.split(":") if one):
        missing = f"{paths}: no such file" if kubeconfig else "there is no Kubernetes cluster"
        hint = f"not in a pod, and no file {paths}" if not kubeconfig else "it must be readable"
        raise ConfigError(f"{missing} ({hint}); set kubernetes.kubeconfig")
    return from_kubeconfig(paths, context)


def runs_in_cluster(mount: Path = SERVICE_ACCOUNT) -> bool:
    """Whether this process is in a pod that has a ServiceAccount."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and (mount / "token").exists()


def in_cluster(mount: Path = SERVICE_ACCOUNT) -> Cluster:
    """The cluster of the pod that this process is in."""
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return Cluster(
        url=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        credentials=TokenFile(mount / "token"),
        tls=TlsFiles(authority=mount / "ca.crt"),
    )


def from_kubeconfig(paths: str, context: str = "") -> Cluster:
    """The cluster of a context of kubeconfig files, several as in KUBECONFIG.

    Raises:
        ConfigError: they are wrong, lack the context, or give no credentials.
    """
    from opsd.clients.kube.kubeconfig import Kubeconfig  # noqa: PLC0415 - loads kubernetes

    settings = Kubeconfig(paths, context)
    return Cluster(
        url=settings.url,
        credentials=settings,
        tls=settings.tls,
        server_name=settings.server_name,
        proxy=_proxy_to(settings.url, settings.proxy),
    )


def _proxy_to(url: str, proxy: str) -> str:
    host = urlsplit(url).hostname or ""
    if not proxy or urllib.request.proxy_bypass(host):
        return ""
    if urlsplit(proxy).scheme != "http":
        raise ConfigError(
            f"the proxy {proxy} to {url} is not supported: only http:// is; "
            "name the API server in NO_PROXY, or use another proxy"
        )
    return proxy
