"""Bring a message to phones and chats through apprise, and know whether it arrived.

Each target is called by itself and asked for its own result: of several services behind one
call, apprise only says that something failed. A wrong URL is an error that names its target,
where apprise only shrugs. Plain text; what is too long for a service is split.

Limits: a service that hangs is left to its thread when `SEND_TIMEOUT_S` is over, so this
belongs into a process of its own that ends afterwards (`opsd deliver`). The name of a
target is shown, its URL never: on some services the URL is the only secret.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from urllib.parse import parse_qsl, unquote, urlsplit

import apprise
from apprise.common import NotifyFormat, NotifyType, OverflowMode
from apprise.result import AppriseResult, AppriseResultStatus

from opsd.clock import Deadline
from opsd.config import AlertTarget
from opsd.errors import ConfigError, DeadlineExceeded, TransientError
from opsd.model import Message, Severity
from opsd.secrets import conceal, redact
from opsd.text import printable, shortened

SEND_TIMEOUT_S = 30.0  # includes the pause that apprise makes between two messages (5.5 s)
READ_TIMEOUT_S = 15.0  # shorter ones make a slow service look dead after it took the message
_SECRET_PART_CHARACTERS = 6  # shorter parts of a URL are words, not tokens
_REASON_CHARACTERS = 200

_KINDS = {
    Severity.INFO: NotifyType.INFO,
    Severity.WARNING: NotifyType.WARNING,
    Severity.CRITICAL: NotifyType.FAILURE,
}


class Notifier:
    """Fulfils `opsd.alerts.outbox.Notifier` for the configured targets."""

    def __init__(self, targets: Sequence[AlertTarget]) -> None:
        """Know the targets; a wrong one fails when it is used, and does not stop the others."""
        logging.getLogger("apprise").setLevel(logging.WARNING)  # debug shows tokens
        self._targets = {target.name: target for target in targets}
        self._services: dict[str, apprise.Apprise] = {}

    def check(self, target: str) -> None:
        """Read the URL of a target and make sure that it can be used; nothing is sent.

        Raises:
            ConfigError: the secret is missing, or apprise does not know the URL.
        """
        if target not in self._services:
            self._services[target] = _service(self._targets[target])

    def targets(self, message: Message) -> tuple[str, ...]:
        """Names of the targets that want this message; for tags that no target has: of all."""
        wanting = [
            target
            for target in self._targets.values()
            if message.severity >= Severity[target.min_severity.upper()]
        ]
        tagged = [one for one in wanting if {one.name, *one.tags} & set(message.tags)]
        return tuple(target.name for target in tagged or wanting)

    def send(self, target: str, message: Message, *, deadline: Deadline) -> None:
        """Hand `message` to one target; returning means that the service accepted it.

        Raises:
            ConfigError: see `check`.
            DeadlineExceeded: the service did not answer in time.
            TransientError: it refused, or could not be reached.
        """
        self.check(target)
        timeout_s = min(SEND_TIMEOUT_S, deadline.remaining())
        result = self._services[target].notify(
            title=message.title,
            body=message.body or message.title,
            notify_type=_KINDS[message.severity],
            body_format=NotifyFormat.TEXT,
            timeout=timeout_s,
        )
        if result.status is AppriseResultStatus.TIMEOUT:
            raise DeadlineExceeded(f"send to {target}: no answer within {timeout_s:.0f} s")
        if not result:
            raise TransientError(f"send to {target}: {_reason(result)}")


def _service(target: AlertTarget) -> apprise.Apprise:
    url = target.url.reveal()
    _conceal_parts(url)
    asset = apprise.AppriseAsset(
        app_id="opsd", app_desc="opsd", app_url="", async_mode=False, storage_mode="memory"
    )
    service = apprise.Apprise(asset=asset)
    if not service.add(url) or not len(service):
        raise ConfigError(
            f"alerts target {target.name}: {target.url} does not hold a URL that apprise knows; "
            "see https://github.com/caronc/apprise/wiki for the form of each service"
        )
    for plugin in service:
        if plugin.overflow_mode is OverflowMode.UPSTREAM:
            plugin.overflow_mode = OverflowMode.SPLIT
        plugin.socket_read_timeout = max(plugin.socket_read_timeout, READ_TIMEOUT_S)
    return service


def _conceal_parts(url: str) -> None:
    """Make sure that no part of `url` shows up when a library writes it apart."""
    parts = urlsplit(url)
    pieces = [
        parts.netloc,
        *parts.path.split("/"),
        *(value for _, value in parse_qsl(parts.query)),
    ]
    if parts.password:
        conceal(parts.password)
        conceal(unquote(parts.password))
    if "." not in parts.netloc and ":" not in parts.netloc:
        pieces.append(parts.netloc)  # ``ntfys://TOPIC``: no host, a secret in its place
    else:
        pieces.remove(parts.netloc)
    for piece in pieces:
        if len(piece) >= _SECRET_PART_CHARACTERS and piece != "localhost":
            conceal(piece)
            conceal(unquote(piece))


def _reason(result: AppriseResult) -> str:
    """What apprise logged last about the failure."""
    said = [entry.message for entry in result.logs()]
    return shortened(printable(redact(said[-1])), _REASON_CHARACTERS) if said else "not accepted"
