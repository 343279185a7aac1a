"""Which flags kubeadm writes into the static pods by itself: all others somebody added.

Limits: releases 1.33 to 1.37, and what has a value of its own in every cluster (addresses, paths)
is only known by name. A test holds this against the kubeadm of two releases.
"""

from __future__ import annotations

from collections.abc import Mapping

#: By program: name of the flag -> its value, if it has the same one in every cluster.
FLAGS: Mapping[str, Mapping[str, str]] = {
    "kube-apiserver": {
        "advertise-address": "",
        "allow-privileged": "true",
        "authorization-mode": "Node,RBAC",
        "client-ca-file": "",
        "enable-admission-plugins": "NodeRestriction",
        "enable-bootstrap-token-auth": "true",
        "etcd-cafile": "",
        "etcd-certfile": "",
        "etcd-keyfile": "",
        "etcd-servers": "",
        "kubelet-client-certificate": "",
        "kubelet-client-key": "",
        "kubelet-preferred-address-types": "",
        "proxy-client-cert-file": "",
        "proxy-client-key-file": "",
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-client-ca-file": "",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "secure-port": "",
        "service-account-issuer": "",
        "service-account-key-file": "",
        "service-account-signing-key-file": "",
        "service-cluster-ip-range": "",
        "tls-cert-file": "",
        "tls-private-key-file": "",
    },
    "kube-controller-manager": {
        "allocate-node-cidrs": "true",
        "authentication-kubeconfig": "",
        "authorization-kubeconfig": "",
        "bind-address": "127.0.0.1",
        "client-ca-file": "",
        "cluster-cidr": "",
        "cluster-name": "",
        "cluster-signing-cert-file": "",
        "cluster-signing-key-file": "",
        "controllers": "*,bootstrapsigner,tokencleaner",
        "kubeconfig": "",
        "leader-elect": "true",
        "requestheader-client-ca-file": "",
        "root-ca-file": "",
        "service-account-private-key-file": "",
        "service-cluster-ip-range": "",
        "use-service-account-credentials": "true",
    },
    "kube-scheduler": {
        "authentication-kubeconfig": "",
        "authorization-kubeconfig": "",
        "bind-address": "127.0.0.1",
        "kubeconfig": "",
        "leader-elect": "true",
    },
    "etcd": {
        "advertise-client-urls": "",
        "cert-file": "",
        "client-cert-auth": "true",
        "data-dir": "",
        "experimental-initial-corrupt-check": "true",
        "experimental-watch-progress-notify-interval": "5s",
        "feature-gates": "InitialCorruptCheck=true",
        "initial-advertise-peer-urls": "",
        "initial-cluster": "",
        "initial-cluster-state": "",
        "key-file": "",
        "listen-client-urls": "",
        "listen-metrics-urls": "",
        "listen-peer-urls": "",
        "name": "",
        "peer-cert-file": "",
        "peer-client-cert-auth": "true",
        "peer-key-file": "",
        "peer-trusted-ca-file": "",
        "snapshot-count": "10000",
        "trusted-ca-file": "",
        "watch-progress-notify-interval": "5s",
    },
}


def is_own(component: str, flag: str, value: str) -> bool:
    """Whether kubeadm writes this without being told to."""
    flags = FLAGS[component]
    return flag in flags and flags[flag] in ("", value)
