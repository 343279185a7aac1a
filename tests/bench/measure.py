"""Measure whole processes, side by side, so that a noisy machine disturbs both alike.

Wall time and CPU of a command count everything that it started. Peak memory is that of the
process itself (its high-water mark), without the programs that it drives.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SAMPLE_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One command, once; or the medians of several times."""

    wall_s: float
    cpu_s: float  #: user and system, descendants included
    peak_mib: float  #: resident, of the process itself
    stage_s: float = 0.0  #: wall time of the stage that was asked for, from the log; 0: none


class Failed(Exception):
    """A measured command did not end as it must."""


def measure(
    argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, stage: str = ""
) -> Measured:
    """Run a command to its end; `stage` is a log event whose ``duration_s`` are added up.

    Raises:
        Failed: its exit status is not 0; with what it wrote.
    """
    started = time.monotonic()
    words = tempfile.TemporaryFile()  # noqa: SIM115 - closed below with the process
    with (
        words,
        subprocess.Popen(
            [str(part) for part in argv],
            env={**os.environ, **(env or {})},
            stdout=subprocess.DEVNULL,
            stderr=words,
            stdin=subprocess.DEVNULL,
        ) as process,
    ):
        peak_kib = 0
        while True:
            peak_kib = max(peak_kib, _high_water_kib(process.pid))
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(_SAMPLE_S)
        process.returncode = os.waitstatus_to_exitcode(status)
        words.seek(0)
        said = words.read().decode(errors="replace")
        if process.returncode:
            raise Failed(f"{argv}: exit status {process.returncode}: {said[-2000:]}")
    return Measured(
        wall_s=time.monotonic() - started,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_mib=peak_kib / 1024,
        stage_s=_stage_s(said, stage) if stage else 0.0,
    )


def _stage_s(log: str, event: str) -> float:
    lines = (json.loads(line) for line in log.splitlines() if line.startswith("{"))
    return sum(float(line["duration_s"]) for line in lines if line["event"] == event)


def interleaved(
    candidates: Mapping[str, Callable[[], Measured]], *, rounds: int
) -> dict[str, Measured]:
    """The medians of each candidate, run in turns: a b c a b c."""
    results: dict[str, list[Measured]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, once in candidates.items():
            results[name].append(once())
    return {name: median(measured) for name, measured in results.items()}


def median(measured: Sequence[Measured]) -> Measured:
    """The median of each figure by itself."""
    return Measured(
        wall_s=statistics.median(m.wall_s for m in measured),
        cpu_s=statistics.median(m.cpu_s for m in measured),
        peak_mib=statistics.median(m.peak_mib for m in measured),
        stage_s=statistics.median(m.stage_s for m in measured),
    )


def _high_water_kib(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0
