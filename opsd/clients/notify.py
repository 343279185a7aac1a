"""Bring a message to phones and chats through apprise, and know whether it arrived.

Each target is one service and asked for its own result: of several services behind one
call, apprise only says that something failed. A wrong URL is an error that names its target,
where apprise only shrugs. Plain text; what is too long for a service is split, and what a
service refuses for its content is sent again without any character that a markup knows.

Limits: one URL may name several people (``tgram://TOKEN/CHAT1/CHAT2``); when one of them
cannot be reached, all of them get the message again. A service that hangs
is left to its thread when `SEND_TIMEOUT_S` is over, so this belongs into a process of its own
that ends afterwards (`opsd deliver`). The name of a target is shown, its URL never: on some
services the URL is the only secret.
"""

from __future__ import annotations

import logging
import re
import threading
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace

import apprise
from apprise.common import NotifyFormat, NotifyType, OverflowMode
from apprise.result import AppriseResult, AppriseResultStatus

from opsd.clock import Deadline
from opsd.config import AlertTarget
from opsd.errors import ConfigError, DeadlineExceeded, TransientError
from opsd.model import Message, Severity
from opsd.secrets import conceal_url, redact
from opsd.text import printable, shortened

SEND_TIMEOUT_S = 30.0  # includes the pause that apprise makes between two messages (5.5 s)
READ_TIMEOUT_S = 15.0  # shorter ones make a slow service look dead after it took the message
_REASON_CHARACTERS = 200
_STATUS = re.compile(r"\berror[=:] ?(\d{3})\d{0,2}\b")  # ntfy adds two digits of its own
_NOT_THE_CONTENT = (401, 403, 404, 407, 408, 410, 425, 429)
_MARKUP = re.compile(r"[^A-Za-z0-9\n.,:;/%+@-]+")

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
        self._lock = threading.Lock()  # the targets are served side by side

    @property
    def known(self) -> Mapping[str, Severity]:
        """Every target, with the severity from which on it wants messages."""
        return {name: _least(target) for name, target in self._targets.items()}

    def check(self, target: str) -> None:
        """Read the URL of a target and make sure that it can be used; nothing is sent.

        Raises:
            ConfigError: the secret is missing, or it is not the URL of one service.
        """
        with self._lock:
            if target not in self._services:
                self._services[target] = _service(self._targets[target])

    def targets(self, message: Message) -> tuple[str, ...]:
        """Names of the targets that want this message; for tags that no target has: of all.

        What is only information, such as a report, goes where warnings go.
        """
        severity = max(message.severity, Severity.WARNING)
        wanting = [target for target in self._targets.values() if severity >= _least(target)]
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
        result = self._notify(target, message, deadline)
        if _dislikes_content(result):
            result = self._notify(target, stripped(message), deadline)
        if not result:
            raise TransientError(f"send to {target}: {_reason(result)}")

    def _notify(self, target: str, message: Message, deadline: Deadline) -> AppriseResult:
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
        return result


def stripped(message: Message) -> Message:
    """`message` in letters, digits and signs that mean nothing in any markup."""
    return replace(message, title=_plain(message.title), body=_plain(message.body))


def _plain(text: str) -> str:
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return _MARKUP.sub(" ", ascii_only)


def _dislikes_content(result: AppriseResult) -> bool:
    """Whether the service refused the text, and not the sender: apprise only logs the status."""
    if result:
        return False
    statuses = [
        int(found[1]) for entry in result.logs() if (found := _STATUS.search(entry.message))
    ]
    return bool(statuses) and all(
        400 <= status < 500 and status not in _NOT_THE_CONTENT  # noqa: PLR2004 - HTTP
        for status in statuses
    )


def _least(target: AlertTarget) -> Severity:
    return Severity[target.min_severity.upper()]


def _service(target: AlertTarget) -> apprise.Apprise:
    url = target.url.reveal()
    conceal_url(url)
    asset = apprise.AppriseAsset(
        app_id="opsd", app_desc="opsd", app_url="", async_mode=False, storage_mode="memory"
    )
    service = apprise.Apprise(asset=asset)
    if not service.add(url) or not len(service):
        raise ConfigError(
            f"alerts target {target.name}: {target.url} does not hold a URL that apprise knows; "
            "see https://github.com/caronc/apprise/wiki for the form of each service"
        )
    if len(service) > 1:
        raise ConfigError(
            f"alerts target {target.name}: {target.url} holds {len(service)} URLs; "
            "make a target of each, so that each is told once"
        )
    for plugin in service:
        if plugin.overflow_mode is OverflowMode.UPSTREAM:
            plugin.overflow_mode = OverflowMode.SPLIT
        plugin.socket_read_timeout = max(plugin.socket_read_timeout, READ_TIMEOUT_S)
    return service


def _reason(result: AppriseResult) -> str:
    """What apprise logged last about the failure."""
    said = [entry.message for entry in result.logs()]
    return shortened(printable(redact(said[-1])), _REASON_CHARACTERS) if said else "not accepted"
