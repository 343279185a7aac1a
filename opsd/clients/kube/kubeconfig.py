"""Kubeconfig files as kubectl reads them, with exec plugins, OIDC and what else they ask for.

The only module that loads the ``kubernetes`` package, which is large.

Limits: of its own accord the package logs what an exec plugin did wrong and goes on without
credentials; here that is an error.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client import Configuration
from kubernetes.config import load_kube_config
from kubernetes.config.config_exception import ConfigException

from opsd.clients.kube.cluster import TlsFiles
from opsd.errors import ConfigError
from opsd.secrets import conceal, redact
from opsd.text import printable

_TOKEN = "BearerToken"  # noqa: S105 - the name under which the package keeps it


class Kubeconfig:
    """One context of one or several files; fulfils `opsd.clients.kube.cluster.Credentials`."""

    def __init__(self, paths: str, context: str = "") -> None:
        """Read the files.

        Raises:
            ConfigError: they are wrong, lack the context, or give no credentials.
        """
        self._paths, self._context = paths, context
        self._lock = threading.Lock()
        self._settings = self._load()

    @property
    def url(self) -> str:
        """Where the API server is."""
        return str(self._settings.host).rstrip("/")

    @property
    def server_name(self) -> str:
        """The name in the server's certificate, if it is not that of the URL."""
        return self._settings.tls_server_name or ""

    @property
    def proxy(self) -> str:
        """The proxy of the file or of the environment."""
        return self._settings.proxy or ""

    def tls(self) -> ssl.SSLContext:
        """See `Cluster.tls`."""
        settings = self._settings
        files = TlsFiles(
            authority=_path(settings.ssl_ca_cert),
            certificate=_path(settings.cert_file),
            key=_path(settings.key_file),
            verify=bool(settings.verify_ssl),
        )
        return files()

    def authorization(self) -> str:
        """See `Credentials.authorization`; gets a new token when this one is about to expire."""
        with self._lock, self._explained():
            value: str = self._settings.get_api_key_with_prefix(_TOKEN) or ""
        conceal(value.partition(" ")[2])
        return value

    def renew(self) -> bool:
        """See `Credentials.renew`."""
        with self._lock:
            before = _identity(self._settings)
            self._settings = self._load()
            return _identity(self._settings) != before

    def _load(self) -> Any:
        settings = Configuration()
        with self._explained() as complaints:
            load_kube_config(  # type: ignore[no-untyped-call]
                self._paths, self._context or None, settings
            )
        if complaints and not any(_identity(settings)):
            raise ConfigError(f"kubeconfig {self._paths}: no credentials: {complaints[-1]}")
        return settings

    @contextlib.contextmanager
    def _explained(self) -> Iterator[list[str]]:
        """Hear what the package logs, and name the file in what it raises."""
        with _overheard() as complaints:
            try:
                yield complaints
            except ConfigException as exc:
                raise ConfigError(f"kubeconfig {self._paths}: {_line(exc)}") from exc
            except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as exc:
                told = f"{type(exc).__name__}: {_line(exc)}"
                raise ConfigError(f"kubeconfig {self._paths}: cannot be read: {told}") from exc


def _identity(settings: Any) -> tuple[str, str]:
    """What the API server gets to see: a token, a certificate, both or nothing."""
    certificate = Path(settings.cert_file).read_text() if settings.cert_file else ""
    return settings.api_key.get(_TOKEN, ""), certificate


@contextlib.contextmanager
def _overheard() -> Iterator[list[str]]:
    complaints: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complaints.append(_line(record.getMessage()))

    ear = Ear(logging.ERROR)
    root = logging.getLogger()
    root.addHandler(ear)
    try:
        yield complaints
    finally:
        root.removeHandler(ear)


def _line(said: object) -> str:
    return printable(redact(str(said)))


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None
