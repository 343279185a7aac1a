"""Which certificates lie on this machine, who are they for, and until when?

Only what is public is read: certificates, never keys. The library is loaded when one is read.

Limits: PEM and DER; whether a chain is trusted is not asked.
"""

from __future__ import annotations

import base64
import binascii
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s+(.*?)-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What one certificate says."""

    where: str  #: the file, or the address that showed it
    subject: str  #: its common name, or all of its name where it has none
    issuer: str  #: likewise
    not_before: datetime  #: aware UTC
    not_after: datetime  #: aware UTC
    names: frozenset[str]  #: DNS names and IP addresses that it is for
    is_authority: bool
    fingerprint: str  #: SHA-256 of all of it, lower-case hex

    def left(self, at: datetime) -> timedelta:
        """How long it is still valid; negative: it ended."""
        return self.not_after - at

    @property
    def life(self) -> timedelta:
        """From its beginning to its end."""
        return self.not_after - self.not_before


def read_pem(where: str, text: str) -> tuple[Certificate, ...]:
    """All certificates of a text, in its order; whatever else it holds is passed over.

    Raises:
        ValueError: there is none, or one is damaged.
    """
    found = tuple(read_der(where, _decoded(where, body)) for body in _PEM.findall(text))
    if not found:
        raise ValueError(f"{where}: no certificate in it")
    return found


def read_data(where: str, encoded: str) -> Certificate:
    """The first certificate of a kubeconfig's ``client-certificate-data``.

    Raises:
        ValueError: it is damaged.
    """
    return read_pem(where, _decoded(where, encoded).decode("ascii", "replace"))[0]


def read_der(where: str, der: bytes) -> Certificate:
    """One certificate as TLS shows it.

    Raises:
        ValueError: it is damaged.
    """
    from cryptography import x509  # noqa: PLC0415 - takes a tenth of a second to load

    try:
        with warnings.catch_warnings(action="ignore"):  # of a serial number of zero
            parsed = x509.load_der_x509_certificate(der)
            return Certificate(
                where=where,
                subject=_called(parsed.subject),
                issuer=_called(parsed.issuer),
                not_before=parsed.not_valid_before_utc,
                not_after=parsed.not_valid_after_utc,
                names=frozenset(_names(parsed)),
                is_authority=_is_authority(parsed),
                fingerprint=parsed.fingerprint(_sha256()).hex(),
            )
    except (ValueError, x509.DuplicateExtension) as exc:
        raise ValueError(f"{where}: the certificate cannot be read: {exc}") from exc


def _decoded(where: str, encoded: str) -> bytes:
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise ValueError(f"{where}: the certificate cannot be read: {exc}") from exc


def _sha256() -> hashes.HashAlgorithm:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - see above

    return hashes.SHA256()


def _called(name: x509.Name) -> str:
    from cryptography.x509.oid import NameOID  # noqa: PLC0415 - see above

    common = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if common else name.rfc4514_string()


def _names(parsed: x509.Certificate) -> Iterator[str]:
    from cryptography import x509  # noqa: PLC0415 - see above

    try:
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    yield from names.get_values_for_type(x509.DNSName)
    yield from (str(address) for address in names.get_values_for_type(x509.IPAddress))


def _is_authority(parsed: x509.Certificate) -> bool:
    from cryptography import x509  # noqa: PLC0415 - see above

    try:
        return parsed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
