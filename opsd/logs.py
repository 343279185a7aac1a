"""Logs that can be shipped, grepped and shown to somebody without leaking a password.

One JSON object per line on stderr, or readable lines when stderr is a terminal. Every value
passes redaction: nested values, exception texts and tracebacks too; local variables are
never shown. Names that are not UTF-8 and control characters are made harmless.

A log call never raises, whatever it is given and whatever became of stderr: a log line must
not be the reason why a backup failed.

Limits: other libraries' loggers are heard from `LOUDEST_FOREIGN` on, whatever level is
configured here: their debug output holds tokens and signed URLs.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

from opsd.secrets import redact
from opsd.text import printable, storable

LOUDEST_FOREIGN = logging.WARNING
# These set levels of their own or are the ones whose debug output leaks.
_FOREIGN = ("apprise", "apscheduler", "boto3", "botocore", "kubernetes", "paramiko", "urllib3")
_DEEPEST = 8  # levels of nesting that are shown
_MOST_FRAMES = 30


def configure(*, level: str = "info", stream: TextIO | None = None) -> None:
    """Send every log line of this process to `stream` (stderr).

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        stream: where to; a terminal gets readable lines, anything else JSON.
    """
    stream = stream or sys.stderr
    for_people = _is_terminal(stream)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(_for_people() if for_people else _for_machines()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=lambda *_: _Lines(stream),
        cache_logger_on_first_use=False,
    )
    _route_foreign()
    threading.excepthook = _log_crash
    sys.unraisablehook = _log_unraisable


def _log_crash(crash: threading.ExceptHookArgs) -> None:
    """A thread that dies says so here, and not with a raw traceback on stderr."""
    if crash.exc_value is not None:
        structlog.get_logger().error(
            "thread.crashed",
            thread=crash.thread.name if crash.thread else "",
            exc_info=crash.exc_value,
        )


def _log_unraisable(crash: sys.UnraisableHookArgs) -> None:
    """So does an error that nobody can catch, as while an object is taken down."""
    with contextlib.suppress(Exception):
        structlog.get_logger().error(
            "error.unraisable", source=crash.err_msg, exc_info=crash.exc_value
        )


def _for_machines() -> tuple[Processor, ...]:
    frames = ExceptionDictTransformer(show_locals=False, max_frames=_MOST_FRAMES)
    return structlog.processors.ExceptionRenderer(frames), _make_harmless, _as_json


def _for_people() -> tuple[Processor, ...]:
    return (
        structlog.processors.format_exc_info,
        _make_harmless,
        _without_control_characters,
        structlog.dev.ConsoleRenderer(
            colors="NO_COLOR" not in os.environ,
            exception_formatter=structlog.dev.plain_traceback,
        ),
    )


class _Lines:
    """Writes a line and never raises."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        with contextlib.suppress(OSError, ValueError):  # broken pipe, full disk, closed stream
            self._stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = exception = fatal = log = msg


class _Foreign(logging.Handler):
    """Hands the lines of other libraries to the same road as ours."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):
            structlog.get_logger().log(
                record.levelno,
                "library.logged",
                logger=record.name,
                message=record.getMessage(),
                exc_info=record.exc_info,
            )


def _route_foreign() -> None:
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, _Foreign)]:
        root.removeHandler(handler)
    root.addHandler(_Foreign(level=LOUDEST_FOREIGN))
    root.setLevel(LOUDEST_FOREIGN)
    for name in _FOREIGN:
        logging.getLogger(name).setLevel(LOUDEST_FOREIGN)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def _make_harmless(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Turn everything into plain values without secrets; nothing after this can raise."""
    return {redact(storable(str(key))): harmless(value) for key, value in event.items()}


def harmless(value: object, depth: int = 0) -> Any:
    """`value` as plain JSON values, without secrets and without undecodable text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {harmless(_text(key)): harmless(item, depth + 1) for key, item in value.items()}
    if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
        return [harmless(item, depth + 1) for item in value]
    return redact(storable(_text(value)))


def _text(value: object) -> str:
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "backslashreplace")
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a value that cannot be shown must not stop the program
        return f"<{type(value).__name__} that cannot be shown>"


def _without_control_characters(
    _logger: WrappedLogger, _method: str, event: EventDict
) -> EventDict:
    """Take terminal escapes out of what a person sees; a traceback keeps its lines."""
    return {
        key: "\n".join(_printable_line(line) for line in value.splitlines())
        if key == "exception" and isinstance(value, str)
        else printable(value)
        if isinstance(value, str)
        else value
        for key, value in event.items()
    }


def _printable_line(line: str) -> str:
    """`line` with its indentation and without control characters."""
    indentation = line[: len(line) - len(line.lstrip(" "))]
    return indentation + printable(line)


def _as_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return json.dumps(event, default=_text)
