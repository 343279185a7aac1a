"""Keep a database's settings with its encrypted dump without showing them to everybody.

Applications keep secrets in them (``ALTER DATABASE app SET app.jwt_secret = ...``). A manifest
is read by everyone who can list the repository, so beside an encrypted dump they stand in
it encrypted too: who opens the one opens the other. Beside a plain dump they stand plain,
because the dump holds them as well.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from opsd.errors import ConfigError

Settings: TypeAlias = tuple[tuple[str, str, str], ...]  # (role or "", name, value)


def seal(settings: Settings, recipients: Sequence[str]) -> str:
    """`settings` for the owners of `recipients` only; empty when there are none.

    Raises:
        ConfigError, PermanentError: as `opsd.backup.crypt.encrypt` does.
    """
    from opsd.backup.crypt import encrypt  # noqa: PLC0415 - only where something is encrypted

    if not settings:
        return ""
    sealed = io.BytesIO()
    encrypt(io.BytesIO(json.dumps(settings).encode()).read, sealed.write, recipients)
    return base64.b64encode(sealed.getvalue()).decode()


def unseal(sealed: str, identity: Path | None) -> Settings:
    """What `seal` was given.

    Args:
        sealed: its result.
        identity: age identity file of one of the recipients.

    Raises:
        ConfigError: there is no identity, or the file holds none.
        PermanentError: it does not fit.
    """
    from opsd.backup.crypt import decrypt, read_identities  # noqa: PLC0415 - as above

    if not sealed:
        return ()
    if identity is None:
        raise ConfigError("the settings are encrypted: name the identity file that opens them")
    plain = io.BytesIO()
    decrypt(io.BytesIO(base64.b64decode(sealed)).read, plain.write, read_identities(identity))
    return tuple((role, name, value) for role, name, value in json.loads(plain.getvalue()))
