"""Which machines opsd believes to be who they say, and how it comes to believe a new one.

The file is of OpenSSH's format and opsd's own. A ConfigMap may hold more, so that a pod that
starts anew need not ask a person again; opsd only reads it, and keeps a copy for the time in
which the cluster does not answer, since just then the machines must be asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from opsd.clients.ssh.known import HostKey, KnownHosts, replaced
from opsd.clock import Deadline
from opsd.errors import ConfigError, OpsdError
from opsd.hosts import kept
from opsd.hosts.roster import Access

if TYPE_CHECKING:
    from opsd.clients.kube.client import Kube

log = structlog.get_logger()

WHAT = "ssh.known_hosts"
COPY_SUFFIX = ".cluster"  # behind the name of the file: what the ConfigMap last said
_COPY_HEAD = "# A copy of what the cluster said; opsd writes it anew.\n"


class Trust:
    """The known hosts of the configuration."""

    def __init__(self, access: Access, open_kube: Callable[[Deadline], Kube]) -> None:
        """Nothing is read yet."""
        self._path = access.known_hosts
        self._configmap = access.known_hosts_configmap
        self._open_kube = open_kube

    @property
    def path(self) -> Path:
        """The file that `believe` writes."""
        return self._path

    def known(self, deadline: Deadline) -> KnownHosts:
        """Everything that is believed.

        Raises:
            ConfigError: the file cannot be read, or the ConfigMap was never read.
        """
        own = KnownHosts.parse(kept.read(self._path, what=WHAT))
        return own + KnownHosts.parse(self._held(deadline)) if self._configmap else own

    def believe(self, name: str, keys: Iterable[HostKey]) -> None:
        """From now on believe a machine these keys, and no others that stand in the file.

        Raises:
            ConfigError: the file cannot be written.
        """
        text = kept.read(self._path, what=WHAT)
        kept.write(self._path, replaced(text, name, keys), what=WHAT)

    def _held(self, deadline: Deadline) -> str:
        """What the ConfigMap says, or said when it was last read."""
        copy = self._path.with_name(self._path.name + COPY_SUFFIX)
        try:
            text = self._asked(deadline)
        except OpsdError as exc:
            remembered = kept.read(copy, what=WHAT)
            if not remembered:
                raise ConfigError(f"ssh.known_hosts_configmap: {exc}") from exc
            log.warning("known_hosts.remembered", configmap=self._configmap, error=str(exc))
            return remembered
        if text != kept.read(copy, what=WHAT):
            kept.write(copy, text, what=WHAT)
        return text

    def _asked(self, deadline: Deadline) -> str:
        from opsd.clients.kube.objects import ConfigMap  # noqa: PLC0415 - not for a file alone

        namespace, _, name = self._configmap.partition("/")
        found = self._open_kube(deadline).get(ConfigMap, name, namespace=namespace)
        return _COPY_HEAD + "".join(f"{value.rstrip()}\n" for value in found.data.values())
