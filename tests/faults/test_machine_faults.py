"""What goes wrong with machines, each caused for real: nobody hangs, nothing is believed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from opsd.clients.ssh.errors import (
    CutOff,
    HostKeyChanged,
    HostKeyUnknown,
    LoginRefused,
    NoShell,
    PasswordExpired,
    Stage,
    TooMuchOutput,
    Unreachable,
)
from opsd.errors import OpsdError
from opsd.hosts import passing
from opsd.hosts.fleet import Visit
from opsd.hosts.roster import Access
from opsd.hosts.script import Script
from tests.faults.proxy import Fault, Kind, Way, in_front_of
from tests.rig import machines as rig
from tests.rig.fleets import (
    access_to,
    asked,
    behind,
    fleet_of,
    fleet_with,
    loopback_access,
    outputs,
)
from tests.rig.machines import AUTHORIZED_KEYS, Network, RealMachine
from tests.rig.sshd import SshServer

pytestmark = pytest.mark.real

TIMEOUT_S = 2.0
KILL_SHELL = "read _ _ _ shell _ </proc/$PPID/stat; kill -9 $shell"


@pytest.fixture(scope="module")
def shared_network() -> Iterator[Network]:
    with rig.network() as network:
        yield network


@pytest.fixture(scope="module")
def shared(shared_network: Network) -> RealMachine:
    return shared_network.machine("rpi1")


@pytest.fixture
def rpi(shared: RealMachine) -> Iterator[RealMachine]:
    """A machine that the next test finds as it was."""
    keys = shared.run(f"cat /{AUTHORIZED_KEYS}").out
    yield shared
    shared.run("kill -CONT -1; nft delete table inet opsd_t")
    shared.run("usermod -s /bin/bash -e '' opsd; chage -d 20000 opsd; passwd -d opsd")
    shared.run("rm -f /usr/sbin/date /run/nologin /home/opsd/.bashrc")
    shared.run("mv /usr/bin/sudo.off /usr/bin/sudo")
    shared.sudoers(rig.EVERYTHING)
    authorize(shared, keys)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "_SILENCE_S", 1.0)


def authorize(machine: RealMachine, lines: str) -> None:
    machine.write(f"/{AUTHORIZED_KEYS}", lines)
    machine.run(f"chown opsd:opsd /{AUTHORIZED_KEYS}", check=True)


def one(machine: RealMachine, *commands: str, within_s: float = 2.0) -> Visit:
    fleet = fleet_of([machine], connect_timeout_s=TIMEOUT_S)
    return asked(fleet, *(commands or ("id -un",)), within_s=within_s)[machine.name]


def problem(visit: Visit, kind: type[OpsdError]) -> str:
    assert isinstance(visit.problem, kind), repr(visit.problem)
    assert visit.machine.name in str(visit.problem)
    return str(visit.problem)


# --- It cannot be reached ---


@pytest.mark.parametrize(
    ("fault", "stage", "told"),
    [
        ("reject_port", Stage.CONNECT, "connection refused"),
        ("drop_port", Stage.CONNECT, "no answer within 2 s"),
        ("freeze", Stage.BANNER, "accepts connections and says nothing for 2 s"),
    ],
)
def test_a_machine_that_does_not_answer_says_how_far_it_came(
    rpi: RealMachine, fault: str, stage: Stage, told: str
) -> None:
    getattr(rpi, fault)()

    visit = one(rpi)

    assert told in problem(visit, Unreachable)
    assert isinstance(visit.problem, Unreachable)
    assert visit.problem.stage is stage
    assert visit.sections == {}


def test_a_machine_without_power_is_unreachable(shared_network: Network) -> None:
    dark = shared_network.machine("dark")
    dark.kill()

    visit = one(dark)

    problem(visit, Unreachable)


def test_half_of_the_fleet_being_gone_spoils_nothing_for_the_other_half(
    shared_network: Network,
) -> None:
    fleet = [shared_network.machine(f"half{number}") for number in range(4)]
    fleet[0].kill()
    fleet[1].freeze()

    visits = asked(fleet_of(fleet, connect_timeout_s=TIMEOUT_S, at_once=2), "id -un")

    assert len(visits) == 4
    assert [outputs(visits[f"half{number}"]) for number in (2, 3)] == [["opsd\n"], ["opsd\n"]]
    assert all(isinstance(visits[f"half{number}"].problem, Unreachable) for number in (0, 1))


def test_a_power_cut_in_the_middle_keeps_what_was_answered(shared_network: Network) -> None:
    dying = shared_network.machine("dying")
    timer = threading.Timer(1.0, dying.kill)
    timer.start()

    visit = one(dying, "echo one", "sleep 1.9", "sleep 1.9", "echo four")
    timer.join()

    assert "fell silent for 3 s at q" in problem(visit, Unreachable)
    assert visit.sections["q0"].stdout == "one\n"
    assert "q3" not in visit.sections


# --- It is there, and does not go on: at any byte of the conversation ---


@pytest.fixture
def through(sshd: SshServer) -> Iterator[Callable[[Fault], Visit]]:
    """Visit the sshd on loopback through a bad network."""
    with in_front_of(sshd.port) as proxy:

        def visit(fault: Fault) -> Visit:
            proxy.set(fault)
            access = behind(loopback_access(sshd, "here", connect_timeout_s=1.0), proxy, sshd)
            return asked(fleet_with(access), "echo one", within_s=0.5)["here"]

        yield visit


@pytest.mark.parametrize(
    ("way", "after_bytes", "stage"),
    [
        (Way.TO_CLIENT, 0, Stage.BANNER),
        (Way.TO_CLIENT, 10, Stage.BANNER),
        (Way.TO_CLIENT, 60, Stage.KEY_EXCHANGE),
        (Way.TO_CLIENT, 1300, Stage.KEY_EXCHANGE),
        (Way.TO_SERVER, 30, Stage.KEY_EXCHANGE),
    ],
)
def test_a_server_that_falls_silent_is_told_with_the_stage(
    through: Callable[[Fault], Visit], way: Way, after_bytes: int, stage: Stage
) -> None:
    visit = through(Fault(kind=Kind.STALL, way=way, after_bytes=after_bytes))

    assert isinstance(visit.problem, Unreachable)
    assert visit.problem.stage is stage


@pytest.mark.parametrize("way", list(Way))
@pytest.mark.parametrize("kind", [Kind.STALL, Kind.CUT, Kind.RESET, Kind.CORRUPT])
def test_a_network_that_fails_at_any_byte_gives_no_answer_but_an_error(
    through: Callable[[Fault], Visit], kind: Kind, way: Way
) -> None:
    for after_bytes in (5, 400, 1500, 1900, 2300, 2600, 2900):
        visit = through(Fault(kind=kind, way=way, after_bytes=after_bytes))

        whole = visit.problem is None and outputs(visit) == ["one\n"]
        assert whole or isinstance(visit.problem, OpsdError)
        assert visit.sections == {} or outputs(visit) == ["one\n"]
        assert "unexpected" not in str(visit.problem)


def test_a_slow_network_is_only_slow(through: Callable[[Fault], Visit]) -> None:
    visit = through(Fault(kind=Kind.DELAY, way=Way.TO_CLIENT, seconds=0.03))

    assert visit.problem is None
    assert outputs(visit) == ["one\n"]


def test_a_server_that_is_no_ssh_server_is_told(s3_server: object, sshd: SshServer) -> None:
    port = s3_server.port  # type: ignore[attr-defined]
    with in_front_of(port) as proxy:
        access = behind(loopback_access(sshd, connect_timeout_s=TIMEOUT_S), proxy, sshd)

        visit = asked(fleet_with(access), "true")["here"]

    assert isinstance(visit.problem, OpsdError)


# --- It is not who it says, or does not let opsd in ---


def test_a_changed_host_key_stops_the_visit_and_names_both_keys(rpi: RealMachine) -> None:
    access = access_to([rpi])
    other = next(line for line in (rpi.home.parent / "client_key.pub").read_text().splitlines())
    access.known_hosts.write_text(f"rpi1 {other}\n")

    visit = asked(fleet_with(access), "id")["rpi1"]

    told = problem(visit, HostKeyChanged)
    assert told.count("SHA256:") == 2
    assert "opsd nodes trust --replace rpi1" in told


def test_an_unknown_host_key_is_not_believed(rpi: RealMachine) -> None:
    access = access_to([rpi])
    access.known_hosts.write_text("")

    visit = asked(fleet_with(access), "id")["rpi1"]

    assert "opsd nodes trust rpi1" in problem(visit, HostKeyUnknown)


def test_a_revoked_host_key_is_not_believed(rpi: RealMachine) -> None:
    access = access_to([rpi])
    known = access.known_hosts.read_text()
    access.known_hosts.write_text(f"{known}@revoked * {rpi.host_key}\n")

    visit = asked(fleet_with(access), "id")["rpi1"]

    assert "revoked" in problem(visit, HostKeyChanged)


def test_a_key_that_is_not_authorized_is_refused_with_the_line_that_is_missing(
    rpi: RealMachine,
) -> None:
    public = rpi.run(f"cat /{AUTHORIZED_KEYS}").out.split()[1]
    authorize(rpi, "")

    refused = problem(one(rpi), LoginRefused)

    assert f"ssh-ed25519 {public}" in refused
    assert "~opsd/.ssh/authorized_keys" in refused


def test_a_key_for_another_address_is_refused(rpi: RealMachine) -> None:
    keys = rpi.run(f"cat /{AUTHORIZED_KEYS}").out
    authorize(rpi, f'from="10.9.9.9" {keys}')

    visit = one(rpi)

    problem(visit, LoginRefused)


def test_an_expired_password_is_told_with_the_command_that_mends_it(rpi: RealMachine) -> None:
    rpi.run("echo opsd:secret | chpasswd; chage -d 0 opsd", check=True)

    told = problem(one(rpi), PasswordExpired)
    rpi.run(told.rpartition("on it: ")[2], check=True)
    mended = one(rpi)

    assert mended.problem is None


@pytest.mark.parametrize(
    "command", ["usermod -e 1 opsd", "echo later >/run/nologin"], ids=["expired", "shutdown"]
)
def test_an_account_that_lets_nobody_in_is_told(rpi: RealMachine, command: str) -> None:
    rpi.run(command, check=True)

    visit = one(rpi)

    assert "Its sshd logs why" in problem(visit, Unreachable)


# --- It lets opsd in, and does not do what is asked ---


@pytest.mark.parametrize("shell", ["/usr/sbin/nologin", "/bin/false"])
def test_an_account_without_a_shell_is_told(rpi: RealMachine, shell: str) -> None:
    rpi.run(f"usermod -s {shell} opsd", check=True)

    visit = one(rpi)

    assert "usermod -s /bin/sh opsd" in problem(visit, NoShell)


@pytest.mark.parametrize("forced", ["internal-sftp", "echo no", "/usr/lib/openssh/sftp-server"])
def test_a_forced_command_that_reads_no_script_is_told(rpi: RealMachine, forced: str) -> None:
    keys = rpi.run(f"cat /{AUTHORIZED_KEYS}").out
    authorize(rpi, f'command="{forced}" {keys}')

    visit = one(rpi)

    problem(visit, NoShell)
    assert visit.sections == {}


def test_a_shell_that_talks_and_sets_a_language_changes_no_answer(rpi: RealMachine) -> None:
    rpi.write(
        "/home/opsd/.bashrc",
        "echo WELCOME; echo @@; echo hello >&2\nexport LC_ALL=de_DE.UTF-8 LANGUAGE=de\n",
    )

    visit = one(rpi, "echo $LC_ALL $LANG", "ls /nowhere")

    assert visit.problem is None
    assert visit.sections["q0"].stdout == "C C\n"
    assert "No such file" in visit.sections["q1"].stderr


def test_a_shell_that_eats_the_script_is_told(rpi: RealMachine) -> None:
    rpi.write("/home/opsd/.bashrc", "cat >/dev/null\n")

    visit = one(rpi)

    problem(visit, NoShell)


def test_a_shell_that_waits_for_ever_is_given_up(rpi: RealMachine) -> None:
    rpi.write("/home/opsd/.bashrc", "exec sleep 60\n")

    visit = one(rpi)

    assert "begins no script" in problem(visit, Unreachable)


def test_a_shell_that_ends_and_leaves_something_behind_is_not_waited_for(
    rpi: RealMachine,
) -> None:
    rpi.write("/home/opsd/.bashrc", "sleep 60 & exit 3\n")

    visit = one(rpi, within_s=50.0)
    left_behind = rpi.run("pkill -x sleep")

    assert "exit status 3" in problem(visit, NoShell)
    assert left_behind.status == 0


def test_a_script_that_is_killed_keeps_what_was_answered_and_says_where(rpi: RealMachine) -> None:
    visit = one(rpi, "echo one", KILL_SHELL, "echo three")

    assert "killed at q1" in problem(visit, CutOff)
    assert outputs(visit) == ["one\n"]


def test_fifty_megabytes_are_cut_and_keep_what_was_answered_before(rpi: RealMachine) -> None:
    flood = "head -c 50000000 /dev/zero | tr '\\0' x"

    visit = one(rpi, "echo one", flood, "echo three", within_s=20.0)

    assert "more than 4 MiB, cut at q1" in problem(visit, TooMuchOutput)
    assert outputs(visit) == ["one\n"]


def test_fifty_megabytes_of_complaints_are_cut_as_well(rpi: RealMachine) -> None:
    flood = "head -c 50000000 /dev/zero | tr '\\0' x >&2"

    visit = one(rpi, "echo one", flood, within_s=20.0)

    problem(visit, TooMuchOutput)
    assert outputs(visit) == ["one\n"]


def test_binary_garbage_spoils_no_other_answer(rpi: RealMachine) -> None:
    garbage = "head -c 100000 /dev/urandom"

    visit = one(rpi, garbage, f"{garbage} >&2", "printf '\\n@@0123456789abcdef q0 0\\n'", "echo 4")

    assert visit.problem is None
    assert visit.sections["q3"].stdout == "4\n"
    assert visit.sections["q2"].stdout == "\n@@0123456789abcdef q0 0\n"


def test_a_question_that_hangs_is_killed_and_the_next_one_is_asked(rpi: RealMachine) -> None:
    visit = one(rpi, "trap '' TERM; sleep 60", "echo two")

    assert visit.problem is None
    assert [one.status for one in visit.sections.values()] == [137, 0]


def test_a_process_that_stays_behind_does_not_hold_the_visit(rpi: RealMachine) -> None:
    visit = one(rpi, "setsid sleep 60 & echo one", "echo two")
    still_there = rpi.run("pkill -x sleep")

    assert visit.problem is None
    assert outputs(visit) == ["one\n", "two\n"]
    assert still_there.status == 0


def test_a_script_that_nobody_reads_any_more_ends_by_itself(rpi: RealMachine) -> None:
    fleet = fleet_of([rpi], within_s=1.5)

    with pytest.raises(OpsdError, match="deadline"):
        asked(fleet, "sleep 1.2", "sleep 1.1", "sleep 1.1", "sleep 98")

    left = rpi.run("for i in $(seq 50); do pgrep -u opsd -x sh || break; sleep 0.1; done; :")
    assert rpi.run("pgrep -u opsd -l sleep").out == ""
    assert left.out.split()[:1] != []


def test_a_clock_that_is_off_by_a_year_is_told_with_the_visit(rpi: RealMachine) -> None:
    before = one(rpi)
    rpi.write("/usr/sbin/date", "#!/bin/sh\nexec /bin/date -d '365 days ago' \"$@\"\n", mode=0o755)

    after = one(rpi)

    assert before.clock_offset_s is not None
    assert abs(before.clock_offset_s) < 5
    assert after.clock_offset_s is not None
    assert abs(after.clock_offset_s + 365 * 86400) < 5


def test_a_clock_that_makes_no_sense_is_unknown(rpi: RealMachine) -> None:
    rpi.write("/usr/sbin/date", "#!/bin/sh\necho soon\n", mode=0o755)

    visit = one(rpi)

    assert visit.problem is None
    assert visit.clock_offset_s is None


def test_a_full_disk_on_the_machine_stops_no_question(rpi: RealMachine) -> None:
    rpi.run("mount -t tmpfs -o size=64k full /tmp; cat /dev/zero >/tmp/x; chmod 777 /tmp")

    visit = one(rpi, "df /tmp", "echo x >/tmp/y", "cat /etc/hostname")
    rpi.run("umount /tmp", check=True)

    assert visit.problem is None
    assert "100%" in visit.sections["q0"].stdout
    assert not visit.sections["q1"].is_ok
    assert visit.sections["q2"].stdout == "rpi1\n"


@pytest.mark.parametrize(
    ("sudoers", "off"),
    [("opsd ALL=(root) ALL", False), ("opsd ALL=(root) NOPASSWD: /usr/bin/id", False), ("", True)],
    ids=["asks for a password", "allows something else", "is not installed"],
)
def test_sudo_that_refuses_is_told_apart_from_an_answer(
    rpi: RealMachine, sudoers: str, *, off: bool
) -> None:
    rpi.sudoers(sudoers)
    if off:
        rpi.run("mv /usr/bin/sudo /usr/bin/sudo.off", check=True)

    visit = one(rpi, "$root cat /etc/shadow", "cat /nowhere")

    assert visit.problem is None
    assert visit.sections["q0"].is_refused
    assert not visit.sections["q0"].is_ok
    assert not visit.sections["q1"].is_refused


# --- The machine between ---


@pytest.fixture(scope="module")
def behind_router(shared_network: Network) -> tuple[RealMachine, RealMachine, Access]:
    """A router, and a machine that lets nobody else in."""
    router, inner = shared_network.machine("router"), shared_network.machine("inner")
    chain = "add chain inet opsd_t input { type filter hook input priority -10; }"
    tests = router.address.rpartition(".")[0] + ".1"
    inner.run(
        f"nft add table inet opsd_t && nft '{chain}' &&"
        f" nft add rule inet opsd_t input ip saddr {tests} tcp dport 22 reject with tcp reset",
        check=True,
    )
    access = access_to([router, inner], jump="router", connect_timeout_s=TIMEOUT_S)
    return router, inner, access


def test_a_machine_is_reached_through_another_one(
    behind_router: tuple[RealMachine, RealMachine, Access],
) -> None:
    _, inner, access = behind_router

    directly = asked(fleet_of([inner], connect_timeout_s=TIMEOUT_S), "hostname")["inner"]
    through_it = asked(fleet_with(access), "hostname")

    problem(directly, Unreachable)
    assert [outputs(through_it[name]) for name in ("router", "inner")] == [
        ["router\n"],
        ["inner\n"],
    ]


def test_the_machine_between_cannot_pretend_to_be_the_one_behind(
    behind_router: tuple[RealMachine, RealMachine, Access],
) -> None:
    _, _, access = behind_router
    moved = tuple(
        replace(one, address="127.0.0.1") if one.name == "inner" else one
        for one in access.machines
    )

    visits = asked(fleet_with(replace(access, machines=moved)), "hostname")

    problem(visits["inner"], HostKeyChanged)


def test_a_machine_behind_a_router_that_is_down_names_the_router(
    behind_router: tuple[RealMachine, RealMachine, Access],
) -> None:
    router, _, access = behind_router
    router.freeze()

    visits = asked(fleet_with(access), "hostname")
    router.thaw()

    assert visits["inner"].blocked_by == "router"
    assert "log in to router" in str(visits["inner"].problem)
    assert visits["router"].blocked_by == ""


def test_a_router_that_is_down_is_tried_once_for_all_behind_it(sshd: SshServer) -> None:
    names = tuple(f"rpi{number}" for number in range(6))
    with in_front_of(sshd.port) as proxy:
        proxy.set(Fault(kind=Kind.MUTE))
        access = behind(loopback_access(sshd, "router", *names), proxy, sshd)
        fleet = fleet_with(replace(access, jump="router", connect_timeout_s=1.0))
        inner = [machine for machine in fleet.roster().machines if machine.name in names]

        visits = list(fleet.visit(inner, Script.of([])))
        tries = proxy.connections

    assert tries == 1
    assert {visit.blocked_by for visit in visits} == {"router"}
    assert len(visits) == len(names)


def test_a_router_that_does_not_forward_is_told(
    behind_router: tuple[RealMachine, RealMachine, Access],
) -> None:
    router, _, access = behind_router
    keys = router.run(f"cat /{AUTHORIZED_KEYS}").out
    authorize(router, f"no-port-forwarding {keys}")

    visits = asked(fleet_with(access), "hostname")
    authorize(router, keys)

    assert "does not forward" in str(visits["inner"].problem)
    assert visits["router"].problem is None
