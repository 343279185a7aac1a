"""The certificates of a throw-away cluster: one authority, and a certificate for any user.

A client certificate says who one is: its common name is the user, its organization the group.
"""

from __future__ import annotations

from pathlib import Path

import trustme


class Pki:
    """Certificate files below one directory; a user's are made on first use."""

    def __init__(self, home: Path, *, host: str) -> None:
        """Make the authority, the server's certificate and the key that signs tokens."""
        home.mkdir()
        self._home = home
        self._authority = trustme.CA()
        self.ca_file = home / "ca.pem"
        self._authority.cert_pem.write_to_path(self.ca_file)
        self.server_certificate, self.server_key = self._write(
            "server", self._authority.issue_cert(host, "localhost")
        )
        _, self.signing_key = self._write("signing", self._authority.issue_cert("signing"))

    def client(self, user: str, *, group: str = "") -> tuple[Path, Path]:
        """Certificate file and key file of a user in at most one group."""
        name = f"{user}@{group}".replace("/", "-")
        files = self._home / f"{name}.crt", self._home / f"{name}.key"
        if not all(file.exists() for file in files):
            # Without a group, one that no rule mentions: trustme always writes some.
            leaf = self._authority.issue_cert(
                "localhost", common_name=user, organization_name=group or "no-group"
            )
            self._write(name, leaf)
        return files

    def _write(self, name: str, leaf: trustme.LeafCert) -> tuple[Path, Path]:
        certificate, key = self._home / f"{name}.crt", self._home / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        _write_private(key, leaf.private_key_pem.bytes())
        return certificate, key


def _write_private(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
