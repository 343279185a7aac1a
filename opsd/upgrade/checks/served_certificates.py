"""Do the programs show the certificates that lie in the files, to the names they are called by?

A renewed file is of no use to a program that read the old one at its start; that it stops at the
old one's end is found out then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from opsd.clients.kube.objects import Node
from opsd.hosts import yamltext
from opsd.hosts.certificates import Certificate
from opsd.hosts.kubeadm import credentials
from opsd.upgrade.answers import partly_understood
from opsd.upgrade.check import Check, Hop, Note, each, failed, passed, skipped, warned
from opsd.upgrade.checks.certificates import until
from opsd.upgrade.facts import Facts, MachineFacts
from opsd.upgrade.handshakes import (
    APISERVER_PORT,
    CONTROL_PLANE,
    ETCD_PORT,
    KUBELET_PORT,
    address_of,
)
from opsd.upgrade.reading import Unreadable

_FILES = {
    APISERVER_PORT: f"{credentials.FOLDER}/apiserver.crt",
    ETCD_PORT: f"{credentials.FOLDER}/etcd/server.crt",
}
_RESTART = {
    APISERVER_PORT: "kube-apiserver",
    ETCD_PORT: "etcd",
}


def _judge(facts: Facts, _hop: Hop) -> Iterator[Note]:
    def judge(node: Node) -> Iterator[Note]:
        yield from each((KUBELET_PORT,), lambda port: _kubelet(facts, node, port))
        if CONTROL_PLANE in node.labels:
            files = _files(facts, node)
            for port in (APISERVER_PORT, ETCD_PORT):
                yield from each((port,), lambda one: _program(facts, node, one, files))

    yield from each(facts.nodes.value, judge)


def _files(facts: Facts, node: Node) -> Mapping[str, Certificate]:
    """What lies on its disk; nothing if that cannot be read, which another check tells."""
    try:
        machine = _machine(facts, node)
        probe = credentials.FOLDER_PROBE
        found = partly_understood(machine, probe, credentials.read_folder)
    except Unreadable:
        return {}
    return {certificate.where: certificate for certificate in found}


def _machine(facts: Facts, node: Node) -> MachineFacts:
    for machine in facts.machines.value:
        if machine.name == node.name:
            return machine
    raise Unreadable(node.name, "it was not visited")


def _shown(facts: Facts, node: Node, port: int) -> Certificate:
    reading = facts.shown.get((node.name, port))
    if reading is None:
        raise Unreadable(f"{node.name} port {port}", "nobody connected to it")
    return reading.value


def _kubelet(facts: Facts, node: Node, port: int) -> Iterator[Note]:
    shown = _shown(facts, node, port)
    value = f"kubelet shows {shown.subject}, {until(shown, facts)}"
    if shown.not_after < facts.at:
        yield warned(shown.where, value, fix=f"on {node.name}: systemctl restart kubelet")
    else:
        yield passed(shown.where, value)


def _program(
    facts: Facts, node: Node, port: int, files: Mapping[str, Certificate]
) -> Iterator[Note]:
    path = _FILES[port]
    if port == ETCD_PORT and files and path not in files:
        yield skipped(f"{node.name} port {port}", "etcd runs elsewhere")
        return
    shown = _shown(facts, node, port)
    value = f"{_RESTART[port]} shows {shown.subject}, {until(shown, facts)}"
    yield from _lasts(facts, shown, value)
    on_disk = files.get(path)
    if on_disk and on_disk.not_after > shown.not_after:
        newer = f"{value}, while {path} lasts until {on_disk.not_after:%Y-%m-%d}"
        fix = (
            f"on {node.name}: move {_RESTART[port]}.yaml out of /etc/kubernetes/manifests, wait "
            "until the pod is gone, and move it back"
        )
        yield warned(shown.where, f"{newer}: renewed, and not restarted since", fix=fix)
    missing = [name for name in _called(facts, node, port) if name not in shown.names]
    for name in missing:
        fix = "add the name to certSANs in kubeadm's configuration and renew the certificate"
        yield warned(shown.where, f"{value}: not for {name}, by which it is called", fix=fix)


def _lasts(facts: Facts, shown: Certificate, value: str) -> Iterator[Note]:
    make = failed if shown.not_after < facts.at else passed
    yield make(shown.where, value)


def _called(facts: Facts, node: Node, port: int) -> Iterator[str]:
    """The names that clients use."""
    yield address_of(node)
    found = facts.config_maps.value.get("kubeadm-config") if port == APISERVER_PORT else None
    if found is not None:
        try:
            config = yamltext.mapping(found.data.get("ClusterConfiguration", ""))
        except ValueError:
            return
        host = str(config.get("controlPlaneEndpoint") or "").rpartition(":")[0]
        if host := host.strip("[]"):
            yield host


SERVED = Check(
    id="served-certificates",
    title="Programs show certificates that are in force and for their names",
    row=26,
    judge=_judge,
    fix="restart the program that shows the old certificate",
    source="kubernetes/kubernetes issue 102556",
    probes=(credentials.FOLDER_PROBE,),
)
