"""The key by which machines know opsd: read once, never written anywhere, never logged."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from opsd.clients.ssh.known import HostKey
from opsd.errors import ConfigError
from opsd.secrets import Secret

if TYPE_CHECKING:
    from paramiko import PKey


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
    words = passphrase.reveal().encode() if passphrase else None
    try:
        return ClientKey(str(secret), _for_library(_parsed(f"{text}\n".encode(), words)))
    except TypeError as exc:  # what it says depends on the form of the key
        if words is None:
            hint = "set ssh.passphrase, or make a key without one: ssh-keygen -t ed25519 -N ''"
            raise ConfigError(f"{secret}: the key has a passphrase; {hint}") from exc
        raise ConfigError(f"{secret}: the key has no passphrase; remove ssh.passphrase") from exc
    except (ValueError, UnsupportedAlgorithm, paramiko.SSHException) as exc:
        if words is not None:
            text = f"{secret}: cannot be read with the passphrase {passphrase}"
            raise ConfigError(text) from exc
        hint = "make one: ssh-keygen -t ed25519 -N '' -f FILE; the file without .pub is meant"
        raise ConfigError(f"{secret}: no private key of OpenSSH; {hint}") from exc


def _parsed(text: bytes, words: bytes | None) -> object:
    read = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in text else load_pem_private_key
    return read(text, words)


def _for_library(key: object) -> PKey:
    """The key as paramiko takes it: of what ssh-keygen writes it cannot read all."""
    match key:
        case ed25519.Ed25519PrivateKey():
            text = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
            return paramiko.Ed25519Key(file_obj=io.StringIO(text.decode()))
        case rsa.RSAPrivateKey() | ec.EllipticCurvePrivateKey():
            text = key.private_bytes(
                Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
            )
            kind = paramiko.RSAKey if isinstance(key, rsa.RSAPrivateKey) else paramiko.ECDSAKey
            return kind(file_obj=io.StringIO(text.decode()))
    raise ValueError(f"keys of this kind are not used ({type(key).__name__})")
