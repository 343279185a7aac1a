"""Asking fifty machines something: opsd, ansible, and plain ssh, all on one sshd.

The machines are names for one address. Only the CPU of the asking side is compared: that of the
sshd, and of what the logins start, is in no figure.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from tests.bench.measure import Measured, interleaved, measure
from tests.bench.report import Line
from tests.rig import sshd
from tests.rig.parts import CACHE
from tests.rig.sshd import SshServer

MACHINES = 50
AT_ONCE = 8
ROUNDS = 1  # ansible takes minutes
LOCK = Path(__file__).resolve().parents[2] / "tools/ansible.lock"
OPSD, SHELL, RAW, SSH = "opsd", "ansible -m shell", "ansible -m raw", "ssh, eight at once"
GOAL = 1 / 5

OURS = """
import sys
from pathlib import Path
from opsd.clock import Deadline, SystemClock
from opsd.hosts.roster import Access, Entry
from opsd.hosts.script import Probe, Script
from opsd.hosts.visiting import SshFleet
from opsd.secrets import Secret
user, key, known_hosts, host, port, at_once, *names = sys.argv[1:]
access = Access(
    user=user, key=Secret(f"file:{key}"), passphrase=None, known_hosts=Path(known_hosts),
    known_hosts_configmap="", jump="", connect_timeout_s=60.0, at_once=int(at_once), nodes=False,
    exclude=(), remembered=Path("/nowhere"),
    machines=tuple(Entry(name=name, address=host, port=int(port)) for name in names),
)
fleet = SshFleet(access, open_kube=None, deadline=Deadline.after(600, SystemClock()))
script = Script.of([Probe(name="up", command="uptime")])
for visit in fleet.visit(fleet.roster().machines, script):
    assert visit.problem is None and visit.sections["up"].is_ok, visit
"""


def lines(place: Path) -> Iterator[Line]:
    """Measure the CPU, the time and the memory of each."""
    names = [f"rpi{number}" for number in range(MACHINES)]
    with sshd.running() as server:
        result = interleaved(_candidates(server, names, place), rounds=ROUNDS)
    ours = result[OPSD]
    for who in (SHELL, RAW, SSH):
        yield Line(
            what=f"{MACHINES} machines asked for their uptime: CPU",
            value=ours.cpu_s / result[who].cpu_s,
            unit="x",
            goal=GOAL if who == SHELL else None,
            against=f"{who}: {result[who].cpu_s:.1f} s, {result[who].wall_s:.1f} s wall",
        )
    yield Line(
        what="the same: CPU of opsd, imports included",
        value=ours.cpu_s / MACHINES * 1000,
        unit="ms",
        goal=None,
        against=f"for each machine; {ours.wall_s:.1f} s wall for all",
    )
    yield Line(
        what="the same: peak memory of opsd", value=ours.peak_mib, unit="MiB", goal=64, against=""
    )


def _candidates(
    server: SshServer, names: Sequence[str], place: Path
) -> dict[str, Callable[[], Measured]]:
    ansible = partial(_ansible, server, names, place, _installed())
    login = " ".join(["ssh", *server.options, server.host])
    ssh = f"printf '%s\\n' {' '.join(names)} | xargs -P {AT_ONCE} -I @ {login} 'uptime # @'"
    where = (server.user, server.identity_file, server.known_hosts, server.host)
    numbers = (str(server.port), str(AT_ONCE))
    ours: list[str | Path] = [sys.executable, "-c", OURS, *where, *numbers, *names]
    return {
        OPSD: partial(measure, ours),
        SHELL: partial(ansible, "shell"),
        RAW: partial(ansible, "raw"),
        SSH: partial(measure, ["sh", "-c", ssh]),
    }


def _ansible(
    server: SshServer, names: Sequence[str], place: Path, program: Path, module: str
) -> Measured:
    # A directory of its own for each round: every round logs in anew, as a daily one does.
    home = Path(tempfile.mkdtemp(dir=place))
    inventory = home / "inventory"
    inventory.write_text(
        "".join(
            f"{name} ansible_host={server.host} ansible_control_path={home}/{name}\n"
            for name in names
        )
    )
    persistent = "-C -o ControlMaster=auto -o ControlPersist=60s"  # ansible's own default
    environment = {
        "ANSIBLE_SSH_ARGS": f"{persistent} {' '.join(server.options)}",
        "ANSIBLE_HOME": str(home),
        "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
        "HOME": str(home),
    }
    forks = ("-f", str(AT_ONCE), "-u", server.user)
    argv = [program, "all", "-i", inventory, "-m", module, "-a", "uptime", *forks]
    return measure([str(one) for one in argv], env=environment)


def _installed() -> Path:
    """ansible in an environment of its own, made once for each content of its lock."""
    home = CACHE / f"ansible-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]}"
    program = home / "bin/ansible"
    if not program.exists():
        uv = str(CACHE / "uv/bin/uv")
        environment = {**os.environ, "VIRTUAL_ENV": str(home)}
        subprocess.run(
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, home], check=True
        )
        subprocess.run(
            [uv, "pip", "sync", "--quiet", "--require-hashes", LOCK], check=True, env=environment
        )
    return program
