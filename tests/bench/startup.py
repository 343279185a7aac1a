"""What the command line and the idle daemon cost."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import interleaved, measure
from tests.bench.report import Line

ROUNDS = 11
SETTLE_S = 5.0
IDLE_S = 60.0
_TICKS_PER_S = 100

CONFIG = """\
[opsd]
state_dir = "{place}/state"
[repositories.here]
type = "directory"
path = "{place}"
[jobs.postgres-backup]
repositories = ["here"]
schedule = "0 3 1 1 *"
[[jobs.postgres-backup.servers]]
name = "main"
host = "127.0.0.1"
user = "nobody"
"""


def lines(place: Path) -> Iterator[Line]:
    """Measure ``opsd --help`` and the daemon between two runs."""
    opsd = Path(sys.executable).with_name("opsd")
    result = interleaved(
        {
            "python": lambda: measure([sys.executable, "-c", "pass"]),
            "help": lambda: measure([opsd, "--help"]),
        },
        rounds=ROUNDS,
    )
    yield Line(
        what="opsd --help, CPU",
        value=result["help"].cpu_s * 1000,
        unit="ms",
        goal=120,
        against=f"python -c pass: {result['python'].cpu_s * 1000:.0f} ms",
    )
    yield from _idle_daemon(place, opsd)


def _idle_daemon(place: Path, opsd: Path) -> Iterator[Line]:
    config = place / "config.toml"
    config.write_text(CONFIG.format(place=place))
    daemon = subprocess.Popen(
        [opsd, "--config", config, "run"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(SETTLE_S)
        before = _cpu_s(daemon.pid)
        time.sleep(IDLE_S)
        used = _cpu_s(daemon.pid) - before
        yield Line(
            what="idle daemon, resident memory",
            value=_resident_mib(daemon.pid),
            unit="MiB",
            goal=48,
            against="VmRSS",
        )
        yield Line(
            what="idle daemon, CPU",
            value=100 * used / IDLE_S,
            unit="%",
            goal=0.1,
            against=f"one core, over {IDLE_S:.0f} s",
        )
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(30)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")
