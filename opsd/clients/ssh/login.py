"""The steps of a login, each with its deadline, and the reason when it goes no further.

A connection, the greeting, the keys, the proof that it is the machine that is meant, and the
answer whether opsd may come in. Nothing of the user's own is used: no agent, no ``~/.ssh``.

Limits: the name of a machine is looked up by the system's resolver, which has a time limit of
its own; give addresses.
"""

from __future__ import annotations

import logging
import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cryptography.exceptions
import paramiko

from opsd.clients.ssh.errors import (
    HostKeyChanged,
    HostKeyUnknown,
    LoginRefused,
    PasswordExpired,
    Stage,
    Unreachable,
)
from opsd.clients.ssh.known import SSH_PORT, HostKey, KnownHosts
from opsd.clock import Deadline
from opsd.errors import PermanentError
from opsd.text import shortened

if TYPE_CHECKING:
    from opsd.clients.ssh.keys import ClientKey

# What went wrong is raised, with its reason; the library's own lines say it again without one.
logging.getLogger("paramiko").propagate = False
logging.getLogger("paramiko").addHandler(logging.NullHandler())

_CIPHERS = ("aes128-gcm@openssh.com", "aes128-ctr")  # first: a tenth less CPU for a login
_KEEPALIVE_S = (10, 5, 3)  # idle, between probes, probes: seconds, seconds, count
_REFUSED_CHARACTERS = 200
_LOGINS = "does it shut down, or get too many logins at once"


#: What the library raises when the other side, or the network, says something odd. Its reading
#: thread keeps any error, and a later call of ours, about something else, raises it again.
BROKEN = (
    paramiko.SSHException,
    cryptography.exceptions.InvalidTag,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    struct.error,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to log in, and as whom."""

    name: str
    address: str
    port: int
    user: str

    @property
    def login(self) -> str:
        """``opsd@10.0.0.11``."""
        return f"{self.user}@{self.address}" + f":{self.port}" * (self.port != SSH_PORT)


def socket_to(target: Target, deadline: Deadline) -> socket.socket:
    """A connection to its address.

    Raises:
        Unreachable: nobody answers.
        DeadlineExceeded: no time is left.
    """
    timeout_s = deadline.remaining()
    try:
        found = socket.create_connection((target.address, target.port), timeout=timeout_s)
    except socket.gaierror as exc:
        text = f"the name {target.address} is not known ({exc.strerror}); give its address"
        raise Unreachable(_about(target, text), stage=Stage.CONNECT) from exc
    except ConnectionRefusedError as exc:
        text = "connection refused; is sshd running there, and on this port?"
        raise Unreachable(_about(target, text), stage=Stage.CONNECT) from exc
    except TimeoutError as exc:
        text = f"no answer within {timeout_s:.0f} s; is it on, and does a firewall drop this?"
        raise Unreachable(_about(target, text), stage=Stage.CONNECT) from exc
    except OSError as exc:
        text = f"{exc.strerror or exc}; is it on, and is there a way to it?"
        raise Unreachable(_about(target, text), stage=Stage.CONNECT) from exc
    idle_s, between_s, count = _KEEPALIVE_S
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_s)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, between_s)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, count)
    return found


def transport_to(
    stream: socket.socket | paramiko.Channel, target: Target, known: KnownHosts
) -> paramiko.Transport:
    """What speaks SSH on a connection; it says nothing yet."""
    transport = paramiko.Transport(stream)
    options = transport.get_security_options()
    options.ciphers = _first(_CIPHERS, options.ciphers)
    # The types that are known first: a machine with several keys then shows a known one.
    keys = known.keys_of(target.name, address=target.address, port=target.port)
    wanted = [name for one in keys for name in _algorithms(one.type)]
    options.key_types = _first(wanted, options.key_types)
    return transport


def _first(wanted: Sequence[str], all_: tuple[str, ...]) -> list[str]:
    """What is wanted and possible, then the rest."""
    chosen = dict.fromkeys(one for one in wanted if one in all_)
    return [*chosen, *(one for one in all_ if one not in chosen)]


def _algorithms(key_type: str) -> tuple[str, ...]:
    return ("rsa-sha2-512", "rsa-sha2-256") if key_type == "ssh-rsa" else (key_type,)


def shake_hands(target: Target, transport: paramiko.Transport, deadline: Deadline) -> None:
    """Greet each other and agree on keys.

    Raises:
        Unreachable: it does not go on.
        PermanentError: there is nothing that both understand.
        DeadlineExceeded: no time is left.
    """
    remaining_s = deadline.remaining()
    transport.banner_timeout = transport.handshake_timeout = remaining_s
    done = threading.Event()
    transport.start_client(event=done)
    is_in_time = done.wait(remaining_s)
    if is_in_time and transport.is_active():
        return
    exc = transport.get_exception()
    if isinstance(exc, paramiko.ssh_exception.IncompatiblePeer):
        text = f"no common algorithm with {transport.remote_version or 'it'}: {exc}; update sshd"
        raise PermanentError(_about(target, text)) from exc
    if not transport.remote_version:
        text = (
            f"it accepts connections and says nothing for {remaining_s:.0f} s; "
            "sshd, or the whole machine, hangs"
            if not is_in_time
            else "it hangs up without a greeting; too many logins at once, or no sshd there?"
        )
        raise Unreachable(_about(target, text), stage=Stage.BANNER) from exc
    text = (
        f"it greets, and then says nothing for {remaining_s:.0f} s; sshd hangs"
        if not is_in_time
        else f"it hangs up during the key exchange ({_reason(exc)})"
    )
    raise Unreachable(_about(target, text), stage=Stage.KEY_EXCHANGE) from exc


def shown_key(transport: paramiko.Transport) -> HostKey:
    """The key that the machine has proven to hold."""
    key = transport.get_remote_server_key()
    return HostKey(key.get_name(), key.asbytes())


def check_host_key(target: Target, transport: paramiko.Transport, known: KnownHosts) -> None:
    """Go on only if it is the machine that is meant.

    Raises:
        HostKeyUnknown, HostKeyChanged: it may be another one.
    """
    shown = shown_key(transport)
    believed = known.keys_of(target.name, address=target.address, port=target.port)
    if known.is_revoked(shown):
        raise HostKeyChanged(_about(target, f"its key {shown.fingerprint} was revoked"))
    if shown in believed:
        return
    if not believed:
        raise HostKeyUnknown(
            _about(
                target,
                f"its key {shown.fingerprint} is not known; compare it, then: "
                f"opsd nodes trust {target.name}",
            )
        )
    expected = " or ".join(one.fingerprint for one in believed)
    raise HostKeyChanged(
        _about(
            target,
            f"it shows the key {shown.fingerprint}, known is {expected}: another machine, or "
            f"installed anew; if so: opsd nodes trust --replace {target.name}",
        )
    )


def authenticate(
    target: Target, transport: paramiko.Transport, *, key: ClientKey, deadline: Deadline
) -> None:
    """Ask to be let in by the key.

    Raises:
        LoginRefused: it does not.
        Unreachable: it does not say.
        DeadlineExceeded: no time is left.
    """
    remaining_s = deadline.remaining()
    done = threading.Event()
    try:
        transport.auth_publickey(target.user, key.key, event=done)
    except BROKEN as exc:
        text = "it hangs up before the login"
        raise Unreachable(_about(target, text), stage=Stage.LOGIN) from exc
    if not done.wait(remaining_s):
        text = f"it does not decide within {remaining_s:.0f} s whether opsd may come in"
        raise Unreachable(_about(target, text), stage=Stage.LOGIN)
    if not transport.is_authenticated():
        raise _refusal(target, transport, key)


def _refusal(
    target: Target, transport: paramiko.Transport, key: ClientKey
) -> LoginRefused | Unreachable:
    exc = transport.get_exception()
    said = _banner(transport)
    if isinstance(exc, paramiko.ssh_exception.PartialAuthentication):
        more = ", ".join(exc.allowed_types)
        hint = f'"AuthenticationMethods publickey" for {target.user}; no password is ever given'
        return PasswordExpired(_about(target, f"it asks for more than a key ({more}); {hint}"))
    if isinstance(exc, paramiko.BadAuthenticationType):
        ways = ", ".join(exc.allowed_types)
        return LoginRefused(
            _about(target, f'it takes no keys, only: {ways}; "PubkeyAuthentication yes"')
        )
    if transport.is_active():
        text = f"it refuses {target.user} with the key {key.fingerprint}{said}"
        line = f"~{target.user}/.ssh/authorized_keys there needs the line: {key.public_line}"
        return LoginRefused(_about(target, f"{text}; {line}"))
    text = f"it hangs up during the login{said}; is the account locked or expired, or {_LOGINS}?"
    return Unreachable(_about(target, f"{text} Its sshd logs why"), stage=Stage.LOGIN)


def _banner(transport: paramiko.Transport) -> str:
    said = transport.get_banner()
    if not said:
        return ""
    text = said.decode("utf-8", "backslashreplace") if isinstance(said, bytes) else str(said)
    return f" and says {shortened(' '.join(text.split()), _REFUSED_CHARACTERS)!r}"


def _about(target: Target, text: str) -> str:
    return f"log in to {target.name} ({target.login}): {text}"


def _reason(exc: BaseException | None) -> str:
    return str(exc) or type(exc).__name__ if exc else "connection closed"
