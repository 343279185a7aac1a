"""A fence is believed only when it reads back what it did. The programs are real."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from opsd.clients.kube.objects import Node
from opsd.clock import Deadline, SystemClock
from opsd.cluster.remedy.devices import fitting
from opsd.cluster.remedy.fences import Device, FenceFailed, Power, Program
from opsd.cluster.remedy.nfsfence import NfsFence
from opsd.cluster.remedy.proof import Proof
from opsd.cluster.remedy.rounds import no_machines
from opsd.cluster.remedy.settings import FenceTable
from opsd.errors import DeadlineExceeded
from opsd.secrets import Secret

#: Keeps a plug's state in a file, and every call in another, as a fence agent would be called.
PLUG = """#!/bin/sh
exec 2>&1
action=status
while IFS='=' read -r name value; do
  case $name in action) action=$value ;; plug) plug=$value ;; esac
  echo "$name=$value" >> {log}
done
[ "$1" = -o ] && action=$2 && echo "argument $2" >> {log}
{before}
case $action in
  on|off) echo "$action" > {state}.$plug ;;
  status) [ "$(cat {state}.$plug)" = on ] || exit 2 ;;
esac
"""


class Plug:
    """A real program that turns something on and off."""

    def __init__(self, home: Path, *, before: str = "") -> None:
        self.state, self.log, self.program = home / "state", home / "log", home / "plug"
        text = PLUG.format(state=self.state, log=self.log, before=before)
        self.program.write_text(text)
        self.program.chmod(0o755)
        self.turn("on")
        self.log.write_text("")

    def turn(self, word: str) -> None:
        Path(f"{self.state}.rpi3").write_text(f"{word}\n")

    @property
    def word(self) -> str:
        return Path(f"{self.state}.rpi3").read_text().strip()

    @property
    def actions(self) -> list[str]:
        lines = self.log.read_text().splitlines()
        return [line.partition("=")[2] for line in lines if line.startswith("action=")]

    def table(self, **changes: object) -> FenceTable:
        values: dict[str, object] = {
            "name": "plug",
            "nodes": ("rpi*",),
            "command": (str(self.program),),
            "options": {"plug": "{node}"},
        }
        return FenceTable.model_validate(values | changes)


def fence_for(name: str, tables: tuple[FenceTable, ...]) -> Device | None:
    addresses = [
        {"type": "Hostname", "address": name},
        {"type": "InternalIP", "address": "10.0.0.13"},
        {"type": "InternalIP", "address": "fd00::13"},
        {"type": "ExternalIP", "address": "192.0.2.13"},
    ]
    value = {"metadata": {"name": name}, "status": {"addresses": addresses}}
    return fitting(msgspec.convert(value, Node), tables, no_machines)


def soon(seconds: float = 30) -> Deadline:
    return Deadline.after(seconds, SystemClock())


def test_a_node_is_cut_off_and_read_back(tmp_path: Path) -> None:
    plug = Plug(tmp_path)

    Program(plug.table(), "rpi3").cut(soon())

    assert plug.word == "off"
    assert plug.actions == ["status", "off", "status"]
    assert "plug=rpi3" in plug.log.read_text()


def test_what_is_off_already_is_only_asked_for(tmp_path: Path) -> None:
    plug = Plug(tmp_path)
    plug.turn("off")

    Program(plug.table(), "rpi3").cut(soon())

    assert plug.actions == ["status"]


def test_a_node_is_given_back_and_read_back(tmp_path: Path) -> None:
    plug = Plug(tmp_path)
    plug.turn("off")

    Program(plug.table(), "rpi3").give_back(soon())

    assert plug.word == "on"


def test_a_program_of_ones_own_may_have_the_action_as_an_argument(tmp_path: Path) -> None:
    plug = Plug(tmp_path)

    Program(plug.table(action_by="argument"), "rpi3").cut(soon())

    assert "argument off" in plug.log.read_text()
    assert plug.word == "off"


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ('[ "$action" = off ] && exit 0', "it reported success, and its status is not off"),
        ('[ "$action" = off ] && { echo no route to plug; exit 1; }', "no route to plug"),
        ("echo Connection timed out; exit 1", "Connection timed out"),
        ("kill -9 $$", "killed by signal 9"),
        ("exit 127", "exit status 127"),
    ],
)
def test_a_fence_that_did_not_do_it_is_an_error_that_says_why(
    tmp_path: Path, before: str, said: str
) -> None:
    plug = Plug(tmp_path, before=before)

    with pytest.raises(FenceFailed, match="rpi3") as failed:
        Program(plug.table(), "rpi3").cut(soon())

    assert said in str(failed.value)


def test_a_fence_that_hangs_is_ended_and_is_an_error(tmp_path: Path) -> None:
    plug = Plug(tmp_path, before='[ "$action" = off ] && sleep 600')

    with pytest.raises(FenceFailed, match=r"off rpi3.*did not end in time"):
        Program(plug.table(timeout="1s"), "rpi3").cut(soon())

    assert plug.word == "on"


def test_the_end_of_the_run_is_no_fault_of_the_fence(tmp_path: Path) -> None:
    plug = Plug(tmp_path, before="sleep 600")

    with pytest.raises(DeadlineExceeded):
        Program(plug.table(), "rpi3").status(soon(0.5))


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    plug = Plug(tmp_path)

    with pytest.raises(FenceFailed, match="no-such-fence"):
        Program(plug.table(command=("no-such-fence",)), "rpi3").status(soon())


def test_a_password_goes_through_stdin_and_stands_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUG_PASSWORD", "canary-1234")
    plug = Plug(tmp_path, before="echo wrong password canary-1234; exit 1")
    program = Program(plug.table(secrets={"password": Secret("env:PLUG_PASSWORD")}), "rpi3")

    with pytest.raises(FenceFailed) as failed:
        program.status(soon())

    assert "password=canary-1234" in plug.log.read_text()
    assert "canary" not in str(failed.value)
    assert "canary" not in program.shown("off")
    assert "password=env:PLUG_PASSWORD" in program.shown("off")


def test_status_tells_on_from_off(tmp_path: Path) -> None:
    plug = Plug(tmp_path)
    program = Program(plug.table(), "rpi3")

    first = program.status(soon())
    plug.turn("off")

    assert (first, program.status(soon())) == (Power.ON, Power.OFF)


def test_the_first_fence_that_fits_a_node_is_taken(tmp_path: Path) -> None:
    plug = Plug(tmp_path)
    tables = (
        plug.table(name="switch", nodes=("nas",)),
        plug.table(name="first", nodes=("rpi*",), cuts="network"),
        plug.table(name="second", nodes=("*",)),
    )

    first, second = fence_for("rpi3", tables), fence_for("x", tables)
    none = fence_for("x", tables[:2])

    assert first is not None
    assert (first.fence.name, first.fence.gives) == ("first", Proof.STORAGE_CUT)
    assert second is not None
    assert (second.fence.name, second.fence.gives) == ("second", Proof.POWER_OFF)
    assert none is None


@pytest.mark.parametrize("options", [{"action": "off"}, {"a=b": "c"}, {"a": "b\nc"}, {"": "c"}])
def test_options_that_would_say_something_else_are_refused(
    tmp_path: Path, options: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match="options"):
        Plug(tmp_path).table(options=options)


NFS = {"name": "files", "type": "nfs", "nodes": ("*",), "server": "nas", "serves": ("10.0.0.5",)}


def test_a_file_server_is_a_fence_for_all_that_a_node_may_come_from() -> None:
    table = FenceTable.model_validate(
        NFS | {"addresses": {"rpi3": ("10.0.1.13", "10.244.3.0/24")}}
    )

    found, other = fence_for("rpi3", (table,)), fence_for("rpi4", (table,))

    assert isinstance(found, NfsFence)
    assert (found.fence.gives, found.fence.server) == (Proof.STORAGE_CUT, "nas")
    assert found.addresses == ("10.0.0.13", "192.0.2.13", "10.0.1.13", "10.244.3.0/24")
    assert found.servers == frozenset({"10.0.0.5"})
    assert found.shown("off") == (
        "ssh nas sudo /usr/local/sbin/opsd-fence cut rpi3 "
        "10.0.0.13 192.0.2.13 10.0.1.13 10.244.3.0/24"
    )
    assert found.shown("on") == "ssh nas sudo /usr/local/sbin/opsd-fence lift rpi3"
    assert isinstance(other, NfsFence)
    assert other.addresses == ("10.0.0.13", "192.0.2.13")


def test_a_fence_without_machines_to_log_in_to_is_an_error() -> None:
    found = fence_for("rpi3", (FenceTable.model_validate(NFS),))

    assert found is not None
    with pytest.raises(FenceFailed, match="no machines are known here"):
        found.status(soon())


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"type": "nfs"}, "needs server, serves"),
        ({"type": "nfs", "server": "nas"}, "needs serves"),
        (NFS | {"command": ("x",)}, "has no command"),
        (NFS | {"cuts": "network", "turn_on": True}, "has no cuts, turn_on"),
        ({}, "needs command"),
        ({"command": ("x",), "server": "nas"}, "has no server"),
        (NFS | {"addresses": {"rpi3": ("fd00::13",)}}, "expected an IPv4 address or network"),
        (NFS | {"addresses": {"rpi3": ("10.0.0.13/24",)}}, "expected an IPv4 address or network"),
    ],
)
def test_a_fence_that_is_half_of_one_kind_and_half_of_another_is_refused(
    table: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        FenceTable.model_validate({"name": "files", "nodes": ("*",)} | table)
