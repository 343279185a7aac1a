"""Which machines opsd believes to be who they say, and how it comes to believe a new one.

The file is of OpenSSH's format and opsd's own. A ConfigMap may hold more, so that a pod that
starts anew, or opsd on another machine, need not ask a person again; only people change it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from opsd.clients.ssh.known import KnownHosts
from opsd.clock import Deadline
from opsd.errors import ConfigError
from opsd.hosts.roster import Access

if TYPE_CHECKING:
    from opsd.clients.kube.client import Kube


class Trust:
    """The known hosts of the configuration."""

    def __init__(self, access: Access, open_kube: Callable[[Deadline], Kube]) -> None:
        self._access = access
        self._open_kube = open_kube

    def known(self, deadline: Deadline) -> KnownHosts:
        """Everything that is believed.

        Raises:
            ConfigError: the file cannot be read.
        """
        own = KnownHosts.parse(_read(self._access.known_hosts))
        return own + KnownHosts.parse(self._held(deadline))

    def _held(self, deadline: Deadline) -> str:
        """What the ConfigMap says."""
        place = self._access.known_hosts_configmap
        if not place:
            return ""
        from opsd.clients.kube.objects import ConfigMap  # noqa: PLC0415 - not for a file alone

        namespace, _, name = place.partition("/")
        found = self._open_kube(deadline).get(ConfigMap, name, namespace=namespace)
        return "\n".join(found.data.values())


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="surrogateescape")
    except FileNotFoundError:
        return ""
    except OSError as exc:
        raise ConfigError(f"ssh.known_hosts: read {path}: {exc.strerror}") from exc
