"""Let a real program die after a number of bytes of its output, wherever that is.

`install` puts a wrapper with the program's name into a directory that a test puts first on
PATH. The wrapper runs the real program, passes on its output, and after so many bytes ends the
program and itself as told. Runs on the bare standard library: it is started for each call.

``kill``: SIGKILL, as the kernel does when memory runs out. ``exit:N``: end with a status;
``exit:0`` is the program that lies. ``hang``: stop passing bytes on and do not end.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

CHUNK_BYTES = 64 << 10


def install(
    real: Path, directory: Path, *, after_bytes: int, then: str = "kill", only: str = ""
) -> Path:
    """Write the wrapper of `real` into `directory`.

    Args:
        real: the program.
        directory: an existing directory, to be put first on PATH.
        after_bytes: how many bytes of output get through; a program with less is left alone.
        then: ``kill``, ``exit:N`` or ``hang``.
        only: wrap only calls that have this among their arguments; empty wraps all.
    """
    wrapper = directory / real.name
    words = [sys.executable, "-IS", __file__, str(after_bytes), then, only, str(real)]
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


def main() -> None:
    """Run the real program; never returns."""
    after_bytes, then, only, *argv = sys.argv[1:]
    if only and not any(only in argument for argument in argv[1:]):
        os.execv(argv[0], argv)  # noqa: S606 - the wrapper steps aside
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as program:
        if pass_on(program, int(after_bytes)):
            end_both(program, then)
        status = program.wait()
    end_as(status)


def pass_on(program: subprocess.Popen[bytes], limit: int) -> bool:
    """Copy output until the limit; whether there was more."""
    assert program.stdout
    while chunk := os.read(program.stdout.fileno(), CHUNK_BYTES):
        part = memoryview(chunk)[:limit]
        while part:
            part = part[os.write(sys.stdout.fileno(), part) :]
        if len(chunk) > limit:
            return True
        limit -= len(chunk)
    return False


def end_both(program: subprocess.Popen[bytes], then: str) -> None:
    """End the program, then this process, as told."""
    if then == "hang":
        signal.pause()
    program.kill()
    program.wait()
    end_as(-signal.SIGKILL if then == "kill" else int(then.removeprefix("exit:")))


def end_as(status: int) -> None:
    """End with an exit status, or by a signal when it is negative."""
    if status < 0:
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    main()
