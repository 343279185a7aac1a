"""Where an API server is, and who opsd is to it.

A ServiceAccount's token is short-lived and its file is renewed by the kubelet. It is read again
when the file changed and after the API server refused it; a file that was left empty never
replaces a token that worked. Certificates are read for each new connection.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from opsd.errors import ConfigError
from opsd.secrets import conceal


class Credentials(Protocol):
    """Who opsd is to the API server."""

    def authorization(self) -> str:
        """The header's value; empty when the certificate says it all.

        Raises:
            ConfigError: there are no credentials where they should be.
        """
        ...

    def renew(self) -> bool:
        """Get new ones, because these were refused; whether there are others now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where the API server is, and how to prove who is who."""

    url: str  #: ``https://10.96.0.1:443``
    credentials: Credentials
    tls: Callable[[], ssl.SSLContext]  #: asked for each connection; files may have changed
    server_name: str = ""  #: the name in the server's certificate, if it is not that of the URL
    proxy: str = ""  #: ``http://HOST:PORT``


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Certificates in files, read again when one of them changed."""

    authority: Path | None = None  #: None: those that the system trusts
    certificate: Path | None = None
    key: Path | None = None
    verify: bool = True

    def __call__(self) -> ssl.SSLContext:
        """A context as the files are now.

        Raises:
            ConfigError: one of them cannot be read.
        """
        try:
            context = ssl.create_default_context(cafile=self.authority)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as exc:
            files = ", ".join(str(path) for path in (self.authority, self.certificate) if path)
            raise ConfigError(f"read the certificates {files}: {exc}") from exc
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class TokenFile:
    """A token that somebody else renews. Threads may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._token = ""
        self._read_as: tuple[int, int, int] | None = None  # what the file looked like then

    def authorization(self) -> str:
        """See `Credentials.authorization`."""
        with self._lock:
            self._look()
            return f"Bearer {self._token}"

    def renew(self) -> bool:
        """See `Credentials.renew`."""
        with self._lock:
            before, self._read_as = self._token, None
            self._look()
            return self._token != before

    def _look(self) -> None:
        """Read the file if it changed; the old token stays when the new one cannot be had."""
        try:
            seen = self._path.stat()
            looks = (seen.st_ino, seen.st_mtime_ns, seen.st_size)
            if looks != self._read_as:
                token = self._path.read_text().strip()
                self._read_as = looks
                self._token = token or self._token
                conceal(self._token)
        except (OSError, UnicodeDecodeError) as exc:
            if not self._token:
                raise ConfigError(f"read the token {self._path}: {exc}") from exc
        if not self._token:
            raise ConfigError(f"the token {self._path} is empty")
