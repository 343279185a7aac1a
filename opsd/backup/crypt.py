"""Encrypt backups so that a stolen cluster, disk or bucket cannot read them.

The format is age: opsd holds public keys only, and the stock ``age -d`` opens what it wrote,
so that a restore needs no opsd. The identity (the private key) belongs on paper or on
another machine; it is asked for by the restore and nowhere kept.

Limits: X25519 keys (age1...) and SSH keys (ssh-ed25519, ssh-rsa) without a passphrase; no
age plugins. What is decrypted is authentic only once the whole stream was read: use it
after `decrypt` returned, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import pyrage

from opsd.errors import ConfigError, PermanentError
from opsd.secrets import conceal

READ_BYTES = 1 << 20  # asked of the source at once; the library asks for 8 KiB
WRITE_BYTES = 1 << 18  # handed on at once; the library hands out 8 KiB
LARGEST_IDENTITY_BYTES = 1 << 16

_SECRET_MARKS = ("AGE-SECRET-KEY-", "PRIVATE KEY")
_AGE_FILE = (b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED FILE-----")

Recipient: TypeAlias = pyrage.x25519.Recipient | pyrage.ssh.Recipient
Identity: TypeAlias = pyrage.x25519.Identity | pyrage.ssh.Identity
Read: TypeAlias = Callable[[int], bytes]
Write: TypeAlias = Callable[[bytes], object]


def parse_recipients(texts: Iterable[str]) -> tuple[Recipient, ...]:
    """The public keys that may open a backup.

    Args:
        texts: ``age1...``, ``ssh-ed25519 AAAA...`` or ``ssh-rsa AAAA...``, each.

    Raises:
        ConfigError: one is not a public key; only what begins as one is repeated in the text.
    """
    return tuple(_parse_recipient(text.strip(), at) for at, text in enumerate(texts, start=1))


def encrypt(read: Read, write: Write, recipients: Sequence[str]) -> None:
    """Encrypt a whole stream. Memory does not grow with it.

    Args:
        read: gives at most so many bytes, none at the end. What it raises comes out as it is.
        write: takes each piece of the result, in order. What it raises comes out as it is.
        recipients: public keys, as in `parse_recipients`.

    Raises:
        ConfigError: there is no recipient, or one is not a public key.
        PermanentError: the library failed.
    """
    keys = parse_recipients(recipients)
    if not keys:
        raise ConfigError("encryption needs at least one recipient")
    source, sink = _Source(read), _Sink(write)
    try:
        pyrage.encrypt_io(source, sink, keys)
    except (pyrage.EncryptError, OSError, ValueError) as exc:
        source.raise_own()
        sink.raise_own()
        raise PermanentError(f"encrypt: {exc}") from exc
    sink.flush_all()


def read_identities(path: Path) -> tuple[Identity, ...]:
    """The private keys of a file: as ``age-keygen`` writes it, or an SSH key.

    Raises:
        ConfigError: the file cannot be read or holds no usable key.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_IDENTITY_BYTES)
    except OSError as exc:
        raise ConfigError(f"identity {str(path)!a}: {exc.strerror}") from exc
    if content.startswith(_AGE_FILE):
        raise ConfigError(
            f"identity {str(path)!a}: it is protected by a passphrase; open it first:"
            " age -d -o plain-identity FILE"
        )
    try:
        return _parse_identities(content)
    except (pyrage.IdentityError, ValueError) as exc:
        raise ConfigError(
            f"identity {str(path)!a}: no usable private key: {exc}; expected lines"
            f" AGE-SECRET-KEY-1... or an SSH private key without a passphrase"
        ) from exc


def decrypt(read: Read, write: Write, identities: Sequence[Identity]) -> None:
    """Decrypt a whole stream. Memory does not grow with it.

    Args:
        read: as for `encrypt`.
        write: as for `encrypt`; what it got is authentic once this function returned.
        identities: from `read_identities`.

    Raises:
        PermanentError: no identity fits, it is no age stream, or it was cut or changed.
    """
    source, sink = _Source(read), _Sink(write)
    try:
        pyrage.decrypt_io(source, sink, identities)
    except (pyrage.DecryptError, OSError, ValueError) as exc:
        source.raise_own()
        sink.raise_own()
        raise PermanentError(f"decrypt: {_why(exc)}") from exc
    sink.flush_all()


def _parse_recipient(text: str, position: int) -> Recipient:
    if any(mark in text for mark in _SECRET_MARKS):
        conceal(text)
        raise ConfigError(
            "a recipient is a private key; put the public key there (age-keygen -y FILE), and"
            " treat the private key as known to others"
        )
    try:
        if text.startswith("age1"):
            return pyrage.x25519.Recipient.from_str(text)
        if text.startswith(("ssh-ed25519 ", "ssh-rsa ")):
            return pyrage.ssh.Recipient.from_str(text)
    except pyrage.RecipientError as exc:
        raise ConfigError(f"recipient {text!a}: not a valid public key: {exc}") from exc
    raise ConfigError(
        f"recipient {position}: expected a public key that begins with age1, ssh-ed25519 or"
        " ssh-rsa"
    )


def _parse_identities(content: bytes) -> tuple[Identity, ...]:
    if b"PRIVATE KEY-----" in content:
        return (pyrage.ssh.Identity.from_buffer(content),)
    lines = [line.strip() for line in content.decode("utf-8").splitlines()]
    secrets = [line for line in lines if line and not line.startswith("#")]
    for secret in secrets:
        conceal(secret)
    if not secrets:
        raise ValueError("the file is empty")
    return tuple(pyrage.x25519.Identity.from_str(secret) for secret in secrets)


def _why(exc: Exception) -> str:
    text = str(exc)
    if "No matching keys" in text:
        return "no identity fits: the backup was encrypted to other recipients"
    if isinstance(exc, OSError):
        return "the data was cut or changed after it was encrypted"
    return f"not an age stream, or its beginning is damaged: {text}"


class _Source:
    """Small reads for the library from large ones, and its own error kept as it is."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._piece = memoryview(b"")
        self._error: BaseException | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            if not self._piece:
                self._piece = memoryview(self._read(READ_BYTES))
        except BaseException as exc:
            self._error = exc
            raise
        end = size if size >= 0 else len(self._piece)
        part, self._piece = self._piece[:end], self._piece[end:]
        return bytes(part)

    def raise_own(self) -> None:
        if self._error is not None:
            raise self._error


class _Sink:
    """Large writes from the library's small ones, and its own error kept as it is."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._kept = bytearray()
        self._error: BaseException | None = None

    def write(self, piece: bytes) -> int:
        self._kept += piece
        if len(self._kept) >= WRITE_BYTES:
            self.flush_all()
        return len(piece)

    def flush(self) -> None:
        """The library's wish; the end of the stream is flushed by `flush_all`."""

    def flush_all(self) -> None:
        piece, self._kept = bytes(self._kept), bytearray()
        try:
            self._write(piece)
        except BaseException as exc:
            self._error = exc
            raise

    def raise_own(self) -> None:
        if self._error is not None:
            raise self._error
