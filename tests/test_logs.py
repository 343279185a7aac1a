from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from opsd import logs, secrets

CANARY = "c4nary-S3cret/with?odd&chars\"'\\"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(secrets, "_revealed", ())
    monkeypatch.setenv("NO_COLOR", "1")
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def logged(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail_with(text: str) -> None:
    password = text
    try:
        int(password)
    except ValueError as exc:
        message = f"could not connect with {password}"
        raise RuntimeError(message) from exc


def log_a_plain_value() -> None:
    structlog.get_logger().info("run.started", url=f"ntfy://{CANARY}@host", password=CANARY)


def log_nested_values() -> None:
    structlog.get_logger().info("run.started", a={"b": [{CANARY: (CANARY, CANARY.encode())}]})


def log_an_object() -> None:
    structlog.get_logger().info("run.started", error=ValueError(CANARY), kind={CANARY})


def log_a_traceback() -> None:
    try:
        fail_with(CANARY)
    except RuntimeError:
        structlog.get_logger().exception("run.crashed")


def log_through_another_library() -> None:
    library = logging.getLogger("botocore.auth")
    library.warning("signed with %s", CANARY)
    try:
        fail_with(CANARY)
    except RuntimeError:
        library.exception("failed")


def crash_a_thread() -> None:
    thread = threading.Thread(target=fail_with, args=(CANARY,))
    thread.start()
    thread.join()


def fail_where_nobody_can_catch() -> None:
    class Dying:
        def __del__(self) -> None:
            fail_with(CANARY)

    Dying()


def log_encoded_forms() -> None:
    log = structlog.get_logger()
    quoted = "c4nary-S3cret%2Fwith%3Fodd%26chars%22%27%5C"
    log.info("run.started", url=f"https://host/?token={quoted}", text=json.dumps(CANARY))
    log.info("run.started", values=repr([CANARY]), bound=repr({"x": CANARY}))


@pytest.mark.parametrize(
    "leak",
    [
        log_a_plain_value,
        log_nested_values,
        log_an_object,
        log_a_traceback,
        log_through_another_library,
        crash_a_thread,
        fail_where_nobody_can_catch,
        log_encoded_forms,
    ],
)
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
@pytest.mark.parametrize("level", ["debug", "info"])
def test_no_secret_survives(
    leak: Callable[[], None], stream: type[io.StringIO], level: str
) -> None:
    secrets.conceal(CANARY)
    written = stream()
    logs.configure(level=level, stream=written)

    leak()

    assert secrets.MASK in written.getvalue()
    assert "c4nary" not in written.getvalue()
    assert "S3cret" not in written.getvalue()


def test_the_canary_shows_where_nothing_conceals_it() -> None:
    written = io.StringIO()
    logs.configure(stream=written)

    for leak in (log_a_plain_value, log_a_traceback, log_through_another_library):
        leak()

    assert written.getvalue().count("c4nary") >= 5


def test_a_log_line_is_one_json_object_with_the_run_it_belongs_to() -> None:
    written = io.StringIO()
    logs.configure(stream=written)
    structlog.contextvars.bind_contextvars(job="nfs-backup", run_id="0123456789ab")

    structlog.get_logger().info("run.ended", duration_s=1.5, text="two\nlines")

    (line,) = logged(written)
    assert line["event"] == "run.ended"
    assert line["level"] == "info"
    assert (line["job"], line["run_id"]) == ("nfs-backup", "0123456789ab")
    assert (line["duration_s"], line["text"]) == (1.5, "two\nlines")
    assert line["timestamp"].endswith("Z")


def test_a_traceback_shows_no_local_variables() -> None:
    written = io.StringIO()
    logs.configure(stream=written)

    try:
        hidden = "value of a local variable"
        _ = len(hidden) / 0
    except ZeroDivisionError:
        structlog.get_logger().exception("run.crashed")

    (line,) = logged(written)
    assert line["exception"][0]["exc_type"] == "ZeroDivisionError"
    assert "value of a local" not in written.getvalue()


def test_debug_lines_of_other_libraries_are_never_written() -> None:
    written = io.StringIO()
    logs.configure(level="debug", stream=written)
    names = ("apprise", "botocore.endpoint", "urllib3.connectionpool", "paramiko.transport", "x")

    for name in names:
        logging.getLogger(name).debug("authorization: token")
        logging.getLogger(name).info("GET https://host/bottoken/send")
    logging.getLogger("x").warning("told")

    assert [line["message"] for line in logged(written)] == ["told"]


def test_a_library_that_raises_its_own_level_is_not_heard_either() -> None:
    written = io.StringIO()
    logs.configure(level="debug", stream=written)
    library = logging.getLogger("apprise")
    library.setLevel(logging.DEBUG)

    library.debug("token")

    assert written.getvalue() == ""


def test_configuring_twice_writes_each_line_once() -> None:
    written = io.StringIO()
    logs.configure(stream=written)
    logs.configure(stream=written)

    logging.getLogger("urllib3").warning("told")

    assert len(logged(written)) == 1


class Unshowable:
    def __str__(self) -> str:
        raise ValueError

    __repr__ = __str__


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
@pytest.mark.parametrize(
    "value",
    [
        "na\udcffme",
        b"na\xffme",
        Unshowable(),
        {Unshowable(): {1, 2}, (1, 2): None, b"\xff": float("nan")},
        "\x1b]0;owned\x07\x1b[2J",
        float("inf"),
    ],
)
def test_no_value_makes_a_log_call_fail(stream: type[io.StringIO], value: object) -> None:
    written = stream()
    logging.getLogger().handlers.clear()  # pytest's own raise on purpose
    logs.configure(stream=written)

    structlog.get_logger().info("run.started", value=value, nested=[value])
    logging.getLogger("library").warning("%s", value)

    assert "run.started" in written.getvalue()
    assert "\x1b" not in written.getvalue()
    assert "\x07" not in written.getvalue()


def test_a_value_that_contains_itself_is_cut_off() -> None:
    written = io.StringIO()
    logs.configure(stream=written)
    loop: list[object] = []
    loop.append(loop)

    structlog.get_logger().info("run.started", loop=loop)

    assert len(logged(written)) == 1


def test_a_line_that_looks_like_another_stays_one_line_on_a_terminal() -> None:
    written = Terminal()
    logs.configure(stream=written)

    structlog.get_logger().info("finding.seen", subject="a\n2026-01-01 [info] run.ended")

    assert len(written.getvalue().splitlines()) == 1


def test_colours_appear_only_when_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, coloured = Terminal(), Terminal()
    logs.configure(stream=plain)
    structlog.get_logger().info("run.started")
    monkeypatch.delenv("NO_COLOR")
    logs.configure(stream=coloured)
    structlog.get_logger().info("run.started")

    assert "\x1b" not in plain.getvalue()
    assert "\x1b" in coloured.getvalue()


def test_a_closed_stream_does_not_stop_the_program() -> None:
    written = io.StringIO()
    logs.configure(stream=written)
    written.close()

    structlog.get_logger().info("run.started")
    logging.getLogger("library").warning("told")


_ASCII_ONLY = """
import structlog
from opsd import logs
logs.configure()
structlog.get_logger().info("run.started", subject="M\\u00fcller \\udcff")
print("alive")
"""


def test_a_c_locale_and_a_full_stderr_do_not_stop_the_program() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        ended = subprocess.run(
            [sys.executable, "-c", _ASCII_ONLY],
            env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": "."},
            stdout=subprocess.PIPE,
            stderr=full,
            check=False,
        )

    assert ended.stdout == b"alive\n"
