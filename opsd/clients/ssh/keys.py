"""The key by which machines know opsd: read once, never written anywhere, never logged."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cryptography.exceptions
import paramiko

from opsd.clients.ssh.known import HostKey
from opsd.errors import ConfigError
from opsd.secrets import Secret

if TYPE_CHECKING:
    from paramiko import PKey

_KINDS = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A private key that is ready to sign."""

    reference: str  #: where it was read: ``file:/etc/opsd/ssh_key``
    key: PKey = field(repr=False)

    @property
    def public_line(self) -> str:
        """What belongs into ``authorized_keys``."""
        return str(HostKey(self.key.get_name(), self.key.asbytes()))

    @property
    def fingerprint(self) -> str:
        """As sshd logs it."""
        return HostKey(self.key.get_name(), self.key.asbytes()).fingerprint


def load(secret: Secret, passphrase: Secret | None = None) -> ClientKey:
    """Read the private key that a secret refers to.

    Raises:
        ConfigError: it is not there, no private key, or its passphrase is missing or wrong.
    """
    text = secret.reveal()
    words = passphrase.reveal() if passphrase else None
    for kind in _KINDS:
        try:
            return ClientKey(str(secret), kind(file_obj=io.StringIO(text), password=words))
        except paramiko.PasswordRequiredException:
            hint = "set ssh.passphrase, or make a key without one: ssh-keygen -t ed25519 -N ''"
            raise ConfigError(f"{secret}: the key has a passphrase; {hint}") from None
        except (
            paramiko.SSHException,
            ValueError,
            IndexError,
            cryptography.exceptions.UnsupportedAlgorithm,
        ):
            continue  # of another kind, or none; the texts of these errors say little
    if words is not None:
        raise ConfigError(f"{secret}: cannot be read with the passphrase {passphrase}")
    hint = "make one: ssh-keygen -t ed25519 -N '' -f FILE; the file without .pub is meant"
    raise ConfigError(f"{secret}: no private key of OpenSSH; {hint}")
