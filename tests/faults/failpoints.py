"""Make opsd fail at a chosen function, with no line for it in production code.

``python -m tests.faults.failpoints --at opsd.backup.directory:DirectoryRepository.create
--when before --nth 2 --do kill -- run-job backup`` runs the command ``opsd run-job backup`` and
kills it before the second call. It exits with `NOT_REACHED` when the call never came, so that
a test of a function that was renamed fails instead of proving nothing.

Limits: processes that opsd starts are not wrapped. A generator function is "before" when it is
called, and "after" when it has yielded its last.
"""

from __future__ import annotations

import argparse
import errno
import functools
import importlib
import inspect
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

CONFESSION = "this is all that I know:"  # how the error of the deed ``confess`` begins
NOT_REACHED = 97  # exit status: the command ended by itself and never came by


@dataclass(frozen=True, slots=True, kw_only=True)
class Failpoint:
    """Where, when and how to fail."""

    at: str  #: ``package.module:Class.method`` or ``package.module:function``
    when: str = "before"  #: ``before`` or ``after`` the call
    nth: int = 1  #: which call, counted from 1
    #: ``kill``, ``term``, ``stop``, ``exit:N``, ``sleep:S``, ``raise:OSError:ENOSPC``, ``confess``
    do: str


def command(failpoint: Failpoint, *arguments: str) -> list[str]:
    """The program and arguments that run ``opsd ARGUMENTS`` with the failpoint."""
    return [
        *(sys.executable, "-m", "tests.faults.failpoints"),
        *("--at", failpoint.at, "--when", failpoint.when),
        *("--nth", str(failpoint.nth), "--do", failpoint.do, "--", *arguments),
    ]


def arm(failpoint: Failpoint) -> Callable[[], bool]:
    """Wrap the named function wherever it is already known; tells whether it struck.

    Raises:
        LookupError: there is no such function.
    """
    module_name, _, path = failpoint.at.partition(":")
    *parents, name = path.split(".")
    owner: Any = importlib.import_module(module_name)
    try:
        for parent in parents:
            owner = getattr(owner, parent)
        original = inspect.getattr_static(owner, name)
    except AttributeError as exc:
        raise LookupError(f"no function {failpoint.at}: {exc}") from exc
    if not isinstance(original, FunctionType):
        raise LookupError(  # noqa: TRY004 - the name is wrong, not a value's type
            f"{failpoint.at} is a {type(original).__name__}, not a function"
        )
    wrapped, struck = _wrap(original, failpoint)
    setattr(owner, name, wrapped)
    for module in list(sys.modules.values()):  # those that said `from module import name`
        for alias, value in list(vars(module).items()):
            if value is original:
                setattr(module, alias, wrapped)
    return struck


def _wrap(
    original: FunctionType, failpoint: Failpoint
) -> tuple[Callable[..., Any], Callable[[], bool]]:
    calls = itertools.count(1)
    strikes: list[int] = []

    def strike(call: int, when: str) -> None:
        if call == failpoint.nth and when == failpoint.when:
            strikes.append(call)
            _act(failpoint.do)

    @functools.wraps(original)
    def call_it(*args: Any, **kw: Any) -> Any:
        call = next(calls)
        strike(call, "before")
        result = original(*args, **kw)
        if inspect.isgenerator(result):
            return _then(result, lambda: strike(call, "after"))
        strike(call, "after")
        return result

    return call_it, lambda: bool(strikes)


def _then(generator: Iterator[Any], end: Callable[[], None]) -> Iterator[Any]:
    yield from generator
    end()


def _act(deed: str) -> None:
    what, _, detail = deed.partition(":")
    match what:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "term":
            os.kill(os.getpid(), signal.SIGTERM)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "exit":
            os._exit(int(detail))
        case "sleep":
            time.sleep(float(detail))
        case "raise":
            raise _exception(detail)
        case "confess":
            raise RuntimeError(f"{CONFESSION} {_all_that_is_known()}")
        case _:
            raise ValueError(f"unknown deed {deed!r}")


def _all_that_is_known() -> str:
    """Every local variable of every function that is under way, as an error might quote them."""
    frame, known = inspect.currentframe(), []
    while frame is not None:
        known.append(f"{frame.f_code.co_qualname}: {frame.f_locals!r}")
        frame = frame.f_back
    return "; ".join(known)


def _exception(detail: str) -> BaseException:
    """``OSError:ENOSPC``, ``KeyboardInterrupt`` or ``opsd.errors.TransientError:text``."""
    name, _, argument = detail.partition(":")
    module_name, _, class_name = name.rpartition(".")
    kind = getattr(importlib.import_module(module_name or "builtins"), class_name)
    if issubclass(kind, OSError) and hasattr(errno, argument):
        number = getattr(errno, argument)
        return OSError(number, os.strerror(number))
    exception: BaseException = kind(argument)
    return exception


def main(argv: Sequence[str]) -> int:
    """Run opsd with a failpoint; its exit status, or `NOT_REACHED`."""
    parser = argparse.ArgumentParser(prog="failpoints")
    parser.add_argument("--at", required=True)
    parser.add_argument("--when", choices=("before", "after"), default="before")
    parser.add_argument("--nth", type=int, default=1)
    parser.add_argument("--do", required=True)
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    known = parser.parse_args(argv)
    failpoint = Failpoint(at=known.at, when=known.when, nth=known.nth, do=known.do)
    struck = arm(failpoint)
    cli = importlib.import_module("opsd.cli")
    try:
        status: int = cli.main([word for word in known.arguments if word != "--"])
    finally:
        if not struck():
            print(f"failpoint never reached: {failpoint}", file=sys.stderr)  # noqa: T201
            os._exit(NOT_REACHED)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
