"""Will the certificates of the cluster last, and are the new ones in use?

kubeadm renews its certificates with every upgrade, so a cluster that is not upgraded for a year
stops at its end. Renewed files help only once the programs were started again.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from opsd.hosts.certificates import Certificate
from opsd.hosts.kubeadm import credentials
from opsd.hosts.kubeadm.credentials import Kubeconfig
from opsd.upgrade.answers import partly_understood, understood
from opsd.upgrade.check import Check, Hop, Note, Status, each, failed, passed, unknown, warned
from opsd.upgrade.facts import Facts, MachineFacts

_LEAF_FAIL = timedelta(days=7)
_LEAF_WARN = timedelta(days=30)
_AUTHORITY_FAIL = timedelta(days=30)
_AUTHORITY_WARN = timedelta(days=365)
_KUBELET_FAIL = timedelta(days=3)
_KUBELET_FRACTION = 0.2  # the kubelet asks for a new one when about 30 % of its life is left
_RENEW = "kubeadm certs renew all, then restart the static pods (docs/upgrades.md#certificates)"


def until(certificate: Certificate, facts: Facts) -> str:
    """``until 2027-01-02, 40 days``."""
    left = certificate.left(facts.at)
    if left < timedelta(0):
        return f"ended on {certificate.not_after:%Y-%m-%d}, {-left.days} days ago"
    return f"until {certificate.not_after:%Y-%m-%d}, {left.days} days"


def _judge(facts: Facts, _hop: Hop) -> Iterator[Note]:
    def judge(machine: MachineFacts) -> Iterator[Note]:
        listing = machine.section(credentials.FOLDER_PROBE.name)
        found = partly_understood(machine, credentials.FOLDER_PROBE, credentials.read_folder)
        if not found:
            why = listing.complaint() if listing.stderr else "there is no certificate"
            yield unknown(f"{machine.name}: {credentials.FOLDER}", why)
        elif listing.stderr.strip():
            yield unknown(f"{machine.name}: {credentials.FOLDER}", listing.complaint())
        for path in credentials.read_unsigned(listing.stdout):
            value = "its key is not there, so kubeadm cannot renew what it signed"
            yield warned(f"{machine.name}: {path}", value, fix="renew where the key is kept")
        for certificate in found:
            yield _lasts(machine, certificate, facts)
        yield from _kubeconfigs(machine, facts)

    yield from each(facts.control_plane, judge)


def _kubeconfigs(machine: MachineFacts, facts: Facts) -> Iterator[Note]:
    for one in _read_kubeconfigs(machine):
        if one.certificate and one.path != credentials.KUBELET_CONF:
            yield _lasts(machine, one.certificate, facts)


def _read_kubeconfigs(machine: MachineFacts) -> tuple[Kubeconfig, ...]:
    probe = credentials.KUBECONFIGS_PROBE
    return partly_understood(machine, probe, credentials.read_kubeconfigs)


def _lasts(machine: MachineFacts, certificate: Certificate, facts: Facts) -> Note:
    is_authority = certificate.is_authority
    fail = _AUTHORITY_FAIL if is_authority else _LEAF_FAIL
    warn = _AUTHORITY_WARN if is_authority else _LEAF_WARN
    where = f"{machine.name}: {certificate.where}"
    value = f"{certificate.subject}, {until(certificate, facts)}"
    fix = "replace the authority: see Manual Rotation of CA Certificates" if is_authority else ""
    left = certificate.left(facts.at)
    if left < fail:
        return failed(where, value, fix=fix)
    if certificate.not_before > facts.at:
        return failed(where, f"{value}, and not before {certificate.not_before:%Y-%m-%d %H:%M}")
    return warned(where, value, fix=fix) if left < warn else passed(where, value)


def _judge_kubelet(facts: Facts, _hop: Hop) -> Iterator[Note]:
    def judge(machine: MachineFacts) -> Iterator[Note]:
        configs = _read_kubeconfigs(machine)
        own = next((one for one in configs if one.path == credentials.KUBELET_CONF), None)
        if own and own.certificate:
            yield from _judge_embedded(machine, own.certificate, facts)
        else:
            probe = credentials.KUBELET_PROBE
            yield _rotates(machine, understood(machine, probe, credentials.read_client), facts)

    yield from each(facts.machines.value, judge)


def _judge_embedded(
    machine: MachineFacts, certificate: Certificate, facts: Facts
) -> Iterator[Note]:
    note = _rotates(machine, certificate, facts)
    fix = (
        f"in {credentials.KUBELET_CONF} name {credentials.KUBELET_CLIENT} as both "
        "client-certificate and client-key, and restart the kubelet"
    )
    value = f"it holds a certificate of its own, which is never renewed: {note.value}"
    make = failed if note.status is Status.FAIL else warned
    yield make(note.where, value, fix=fix)


def _rotates(machine: MachineFacts, certificate: Certificate, facts: Facts) -> Note:
    where = f"{machine.name}: {certificate.where}"
    value = f"{certificate.subject}, {until(certificate, facts)}"
    left = certificate.left(facts.at)
    if left < _KUBELET_FAIL:
        return failed(where, value)
    if left < certificate.life * _KUBELET_FRACTION:
        return warned(where, f"{value}: the kubelet should have renewed it")
    return passed(where, value)


CERTIFICATES = Check(
    id="certificates",
    title="The certificates of the control plane last",
    row=25,
    judge=_judge,
    fix=f"on the control plane: {_RENEW}",
    source="kubeadm documentation: certificate management",
    probes=(credentials.FOLDER_PROBE, credentials.KUBECONFIGS_PROBE),
    unknown_blocks=True,
)
KUBELET_CERTIFICATE = Check(
    id="kubelet-certificate",
    title="Kubelets renew the certificate with which they log in",
    row=27,
    judge=_judge_kubelet,
    fix="systemctl restart kubelet on the node, then look for pending requests: kubectl get csr",
    source="kubernetes/website issue 28312; kubernetes/kubeadm issue 2054",
    probes=(credentials.KUBECONFIGS_PROBE, credentials.KUBELET_PROBE),
)
