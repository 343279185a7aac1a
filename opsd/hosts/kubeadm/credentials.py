"""The certificates of a kubeadm node: in its folder, in its kubeconfig files, of its kubelet.

What is fetched is public. Of the files that also hold keys only the lines of certificates leave
the node; no key is ever asked for.

Limits: kubeadm's paths.
"""

from __future__ import annotations

from dataclasses import dataclass

from opsd.hosts import certificates
from opsd.hosts.certificates import Certificate
from opsd.hosts.kubeadm.listing import by_file
from opsd.hosts.script import Probe

FOLDER = "/etc/kubernetes/pki"
KUBELET_CONF = "/etc/kubernetes/kubelet.conf"
KUBECONFIGS = (
    "/etc/kubernetes/admin.conf",
    "/etc/kubernetes/super-admin.conf",
    "/etc/kubernetes/controller-manager.conf",
    "/etc/kubernetes/scheduler.conf",
    KUBELET_CONF,
)
KUBELET_CLIENT = "/var/lib/kubelet/pki/kubelet-client-current.pem"

FOLDER_PROBE = Probe(
    name="certificates-folder",
    command=f"""cd {FOLDER} || exit 1
for ca in ca etcd/ca front-proxy-ca; do
    if [ -e $ca.crt ] && [ ! -e $ca.key ]; then echo "@unsigned {FOLDER}/$ca.crt"; fi
done
find {FOLDER} -name '*.crt' -exec grep -H . /dev/null {{}} +""",
)
KUBECONFIGS_PROBE = Probe(
    name="certificates-kubeconfigs",
    command=f"$root grep -s client-certificate {' '.join(KUBECONFIGS)}",
)
KUBELET_PROBE = Probe(
    name="certificates-kubelet",
    command=f"$root sed -n '/BEGIN.CERT/,/END.CERT/p' {KUBELET_CLIENT}",
)

_UNSIGNED = "@unsigned "
_DATA = "client-certificate-data:"
_PATH = "client-certificate:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubeconfig:
    """How one kubeconfig file shows who it is."""

    path: str
    certificate: Certificate | None = None  #: that it holds itself
    names: str = ""  #: the file with it otherwise


def read_folder(text: str) -> tuple[Certificate, ...]:
    """The answer to `FOLDER_PROBE`: the first certificate of each file.

    Raises:
        ValueError: one of them is damaged.
    """
    listing = (line for line in text.splitlines() if not line.startswith(_UNSIGNED))
    files = sorted(by_file("\n".join(listing)).items())
    return tuple(certificates.read_pem(path, content)[0] for path, content in files)


def read_kubeconfigs(text: str) -> tuple[Kubeconfig, ...]:
    """The answer to `KUBECONFIGS_PROBE`.

    Raises:
        ValueError: a certificate is damaged.
    """
    return tuple(_kubeconfig(path, content) for path, content in sorted(by_file(text).items()))


def read_unsigned(text: str) -> tuple[str, ...]:
    """The answer to `FOLDER_PROBE`: authorities whose keys are kept elsewhere."""
    lines = text.splitlines()
    return tuple(line.removeprefix(_UNSIGNED) for line in lines if line.startswith(_UNSIGNED))


def read_client(text: str) -> Certificate:
    """The answer to `KUBELET_PROBE`: with which the kubelet logs in.

    Raises:
        ValueError: it is damaged, or there is none.
    """
    return certificates.read_pem(KUBELET_CLIENT, text)[0]


def _kubeconfig(path: str, content: str) -> Kubeconfig:
    for line in (line.strip() for line in content.splitlines()):
        if line.startswith(_DATA):
            data = line.removeprefix(_DATA).strip(" '\"")
            return Kubeconfig(path=path, certificate=certificates.read_data(path, data))
        if line.startswith(_PATH):
            return Kubeconfig(path=path, names=line.removeprefix(_PATH).strip(" '\""))
    return Kubeconfig(path=path)
