"""Real machines for the tests: a Debian each, with an address, an sshd and a user of its own.

`make setup` makes the file system that all of them start from. A machine is that file system
under a writable layer, in namespaces of its own: it sees its own processes, its own network
card and its own host name, and `kill` is a power cut. Updates are pending from an archive on
its own disk, so that apt says the same every day; see `tools/machines`.

Everything hangs on processes that die with the test process, however that ends: the kernel
then takes down mounts, cards and addresses. Several test processes have a network each.

Limits: the kernel, its log, `/sys` and the time are those of the host, and no systemd runs.
Needs root.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
import socket
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.rig import parts, scratch
from tests.rig.parts import program
from tests.rig.server import Server

USER = "opsd"
USER_ID = 1000  # the first that Debian gives
AUTHORIZED_KEYS = Path("home", USER, ".ssh/authorized_keys")
SSH_PORT = 22
COMMAND_S = 60.0
RECIPE = Path(__file__).resolve().parents[2] / "tools" / "machines"
EVERYTHING = "opsd ALL=(root) NOPASSWD: ALL"

# What becomes process 1 of the machine. Bash, because it also buries the children of others.
_BOOT = """\
set -e
root=$1 lower=$2 name=$3 boot_id=$4
mkdir -p "$root/upper" "$root/work" "$root/merged"
mount -t overlay overlay \
    -o "lowerdir=$lower,upperdir=$root/upper,workdir=$root/work" "$root/merged"
cd "$root/merged"
hostname "$name"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir -p run/sshd run/lock dev/pts dev/shm
chmod 1777 run/lock dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
echo "$boot_id" >run/boot_id
mount --bind run/boot_id proc/sys/kernel/random/boot_id
exec chroot . /bin/bash -c '
    /usr/sbin/sshd -D -e -o PasswordAuthentication=no -o UseDNS=no -o MaxStartups=100 &
    while :; do sleep infinity & wait $!; done'
"""


@functools.cache
def base() -> Path:
    """The file system that machines start from; skips the test where it cannot be."""
    recipe = b"".join(
        (RECIPE / name).read_bytes() for name in ("build.sh", "repository.sh", "pending.sh")
    )
    found = parts.CACHE / "machines" / hashlib.sha256(recipe).hexdigest()[:16]
    if os.geteuid() != 0:
        parts.missing("a test machine (only root can start one)", "sudo make test")
    if not found.is_dir():
        parts.missing("the file system of test machines")
    return found


def _call(*argv: str | Path, stdin: str = "") -> None:
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, check=False, timeout=COMMAND_S
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, argv))}: {done.stderr.strip()}")


def net_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    return ""


@dataclass(frozen=True, slots=True)
class Done:
    """A command on a machine that ended."""

    status: int
    out: str
    err: str


@dataclass
class RealMachine:
    """One machine; it runs from the moment it is made until the end of its network."""

    name: str
    address: str
    home: Path = field(repr=False)  #: holds what it wrote; survives `kill` and `start`
    network: Network = field(repr=False)
    card: str = ""  #: the other end of its network card
    host_key: str = ""  #: ``ssh-ed25519 AAAA...``
    boot_id: str = ""
    _server: Server | None = field(default=None, repr=False)

    port: int = SSH_PORT
    user: str = USER

    @property
    def identity_file(self) -> Path:
        """The private key of the user."""
        return self.network.home / "client_key"

    @property
    def known_host(self) -> str:
        """Its line of known_hosts."""
        return f"{self.address} {self.host_key}"

    @property
    def is_on(self) -> bool:
        """Whether it was started, and not killed."""
        return self._server is not None

    @property
    def pid(self) -> int:
        """Of its process 1, as the host counts."""
        assert self._server, f"{self.name} is switched off"
        with contextlib.suppress(OSError, IndexError):
            starter = self._server.pid
            return int(Path(f"/proc/{starter}/task/{starter}/children").read_text().split()[0])
        return 0

    @property
    def net(self) -> str:
        """Its network, as /proc calls it."""
        return net_of(self.pid)

    @property
    def root(self) -> Path:
        """Its file system; to write files, `write` is safer (links in it are the host's)."""
        return Path(f"/proc/{self.pid}/root")

    def start(self) -> None:
        """Switch it on and wait for its sshd; each start has a new boot id."""
        self.boot_id = str(uuid.uuid4())
        boot = self.home / "boot.sh"
        boot.write_text(_BOOT)
        namespaces = ("--mount", "--pid", "--uts", "--ipc", "--net", "--fork", "--kill-child")
        self._server = Server(
            [
                *(program("unshare"), *namespaces, "bash", boot),
                *(self.home, base(), self.name, self.boot_id),
            ],
            log=self.home / "log",
        )
        ours = net_of(os.getpid())
        self._server.await_ready(lambda: net_of(self.pid) not in {"", ours})
        self.network.connect(self)
        self._server.await_ready(self._listens)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((self.address, self.port)) == 0

    def kill(self) -> None:
        """Cut its power; what it wrote stays. Nobody is told, not even by a closed connection."""
        if self._server:
            self.network.disconnect(self)
            self._server.kill()
        self._server = None

    def freeze(self) -> None:
        """Stop its processes: connections are accepted by the kernel, and nothing answers."""
        self.run("kill -STOP -1")

    def thaw(self) -> None:
        """Undo `freeze`."""
        self.run("kill -CONT -1")

    def unplug(self) -> None:
        """Pull the network cable; it goes on running."""
        self.network.switch(self, "down")

    def plug_in(self) -> None:
        """Undo `unplug`."""
        self.network.switch(self, "up")

    def drop_port(self, port: int = SSH_PORT) -> None:
        """Let packets to a port vanish, as a firewall does."""
        self._filter(port, "drop")

    def reject_port(self, port: int = SSH_PORT) -> None:
        """Refuse connections to a port."""
        self._filter(port, "reject with tcp reset")

    def open_ports(self) -> None:
        """Undo `drop_port` and `reject_port`."""
        self.run("nft delete table inet opsd_t")

    def _filter(self, port: int, verdict: str) -> None:
        chain = "input { type filter hook input priority -10; }"
        self.run(
            f"nft add table inet opsd_t && nft 'add chain inet opsd_t {chain}' &&"
            f" nft add rule inet opsd_t input tcp dport {port} {verdict}",
            check=True,
        )

    def run(self, command: str, *, check: bool = False, stdin: str = "") -> Done:
        """Run a shell command on it as root, past its sshd and its firewall.

        Raises:
            AssertionError: `check`, and it failed.
        """
        done = subprocess.run(
            [*self.entering(), "sh", "-c", command],
            input=stdin.encode(),
            capture_output=True,
            check=False,
            timeout=COMMAND_S,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/root"},
        )
        out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        assert done.returncode == 0 or not check, f"{self.name}: {command}: {err}{out}"
        return Done(done.returncode, out, err)

    def entering(self) -> Sequence[str]:
        """What stands before a command line that is to run on the machine."""
        spaces = ("--mount", "--pid", "--uts", "--ipc", "--net", "--root", "--wdns=/")
        return (str(program("nsenter")), "--target", str(self.pid), *spaces)

    def write(self, path: str, content: str | bytes, *, mode: int = 0o644) -> None:
        """Write a file on it, as root, with the folders above it."""
        target = self._below(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        target.chmod(mode)

    def _below(self, path: str) -> Path:
        """The file's place for the host; symbolic links of folders are the machine's."""
        folder, _, name = path.rpartition("/")
        real = self.run(f"readlink -m '{folder or '/'}'", check=True).out.strip()
        return self.root / real.lstrip("/") / name

    def sudoers(self, *lines: str) -> None:
        """What its user may do as root, instead of everything."""
        self.write("/etc/sudoers.d/opsd", "".join(f"{line}\n" for line in lines), mode=0o440)


class Network:
    """A switch, and the machines that are connected to it and to the tests."""

    def __init__(self, home: Path) -> None:
        """A new network, of a number that no other test process uses."""
        self.home = home
        self.machines: list[RealMachine] = []
        self._next = 10
        self._switch = Server(
            [program("unshare"), "--net", "sleep", "infinity"], log=home / "switch.log"
        )
        self.number = 0  #: of its addresses: ``10.213.NUMBER.*``
        _keys(home, "client_key")

    def open(self) -> None:
        """Connect the tests to it."""
        ours = net_of(os.getpid())
        self._switch.await_ready(lambda: net_of(self._switch.pid) not in {"", ours})
        self.number = self._take_number()
        card = f"opsd-t-{self.number}"
        _call(program("ip"), "addr", "add", f"10.213.{self.number}.1/24", "dev", card)
        _call(program("ip"), "link", "set", card, "up")
        self._ip("link add switch type bridge", "link set switch up")
        self._ip("link set tests master switch", "link set tests up")

    def _take_number(self) -> int:
        peer = ("type", "veth", "peer", "name", "tests", "netns", str(self._switch.pid))
        for number in sorted(range(1, 255), key=lambda _: secrets.randbits(32)):
            # The name of the card is the lock on the number.
            with contextlib.suppress(RuntimeError):
                _call(program("ip"), "link", "add", f"opsd-t-{number}", *peer)
                return number
        raise RuntimeError("every network of the tests is taken: ip link show")

    def _ip(self, *commands: str, pid: int = 0) -> None:
        """Give commands to ip(8) on the switch, or in the network of a process."""
        entering = (program("nsenter"), "--target", str(pid or self._switch.pid), "--net")
        _call(*entering, program("ip"), "-batch", "-", stdin="\n".join(commands) + "\n")

    def machine(self, name: str, *, sudoers: Sequence[str] = (EVERYTHING,)) -> RealMachine:
        """A new machine, switched on."""
        self._next += 1
        home = self.home / name
        home.mkdir()
        _keys(home, "host_key")
        made = RealMachine(
            name=name,
            address=f"10.213.{self.number}.{self._next}",
            home=home,
            network=self,
            card=f"m{self._next}",
            host_key=" ".join((home / "host_key.pub").read_text().split()[:2]),
        )
        self._furnish(made, sudoers)
        self.machines.append(made)
        made.start()
        return made

    def _furnish(self, machine: RealMachine, sudoers: Sequence[str]) -> None:
        """Write what differs from machine to machine to the layer above the common base."""
        keys = Path("etc/ssh")
        private = {
            keys / "ssh_host_ed25519_key": (machine.home / "host_key").read_text(),
            Path("etc/sudoers.d/opsd"): "".join(f"{line}\n" for line in sudoers),
        }
        public = {
            keys / "ssh_host_ed25519_key.pub": (machine.home / "host_key.pub").read_text(),
            Path("etc/hosts"): f"127.0.0.1 localhost\n{machine.address} {machine.name}\n",
            Path("etc/hostname"): f"{machine.name}\n",
            Path("etc/machine-id"): f"{secrets.token_hex(16)}\n",
            AUTHORIZED_KEYS: (self.home / "client_key.pub").read_text(),
        }
        for path, content in {**public, **private}.items():
            target = machine.home / "upper" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content)
            target.chmod(0o600 if path in private else 0o644)
        for path in (AUTHORIZED_KEYS, AUTHORIZED_KEYS.parent, AUTHORIZED_KEYS.parent.parent):
            os.chown(machine.home / "upper" / path, USER_ID, USER_ID)

    def connect(self, machine: RealMachine) -> None:
        """Give a machine that was just switched on its network card and its address."""
        hardware = f"02:d5:00:00:{self.number:02x}:{int(machine.card[1:]):02x}"
        peer = f"type veth peer name eth0 address {hardware} netns {machine.pid}"
        self._ip(f"link add {machine.card} {peer}", f"link set {machine.card} master switch up")
        self._ip(
            "link set lo up",
            f"addr add {machine.address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via 10.213.{self.number}.1",
            pid=machine.pid,
        )

    def disconnect(self, machine: RealMachine) -> None:
        """Take its network card away; the same one comes back when it is switched on."""
        self._ip(f"link delete {machine.card}")

    def switch(self, machine: RealMachine, state: str) -> None:
        """Set the other end of its cable ``up`` or ``down``."""
        self._ip(f"link set {machine.card} {state}")

    def close(self) -> None:
        """Switch everything off."""
        for machine in self.machines:
            machine.kill()
        self._switch.kill()


def _keys(home: Path, name: str) -> None:
    kind = ("-q", "-t", "ed25519", "-N", "", "-C", name)
    _call(program("ssh-keygen"), *kind, "-f", home / name)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """A network without machines; they and it are gone at the end."""
    base()
    with scratch.directory("machines", in_memory=True) as home:
        made = Network(home)
        try:
            made.open()
            yield made
        finally:
            made.close()
