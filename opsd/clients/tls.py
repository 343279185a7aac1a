"""Which certificate does a server show to whoever connects?

It is taken as it comes, trusted or not, and no certificate is shown to the server: with TLS 1.3
it has shown its own before it can ask for one. Nothing is sent after the handshake.

Limits: a server of an older TLS that demands a client's certificate is not read.
"""

from __future__ import annotations

import contextlib
import socket
import ssl

from opsd.errors import TransientError


def shown_certificate(address: str, port: int, *, timeout_s: float) -> bytes:
    """The server's own certificate, DER.

    Raises:
        TransientError: it was not reached in time, or does not speak TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    what = f"TLS handshake with {address} port {port}"
    try:
        with contextlib.closing(socket.create_connection((address, port), timeout_s)) as plain:
            plain.settimeout(timeout_s)
            with context.wrap_socket(plain) as server:
                der = server.getpeercert(binary_form=True)
    except TimeoutError as exc:
        raise TransientError(f"{what}: no answer within {timeout_s:g} s") from exc
    except OSError as exc:
        raise TransientError(f"{what}: {exc}") from exc
    if der is None:
        raise TransientError(f"{what}: no certificate was shown")
    return der
