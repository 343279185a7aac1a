"""`opsd nodes`: the machines on one page, whom to believe, and whether opsd gets in."""

from __future__ import annotations

import base64
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsd.cli.nodelist import pages_of
from opsd.model import Finding, OpenFinding, Outcome, Run, Severity
from tests.rig import sshd as ssh_rig
from tests.rig.server import free_port
from tests.rig.sshd import SshServer
from tests.rig.typed import Desk, ago, finding, run


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def fingerprint_of(server: SshServer) -> str:
    kind, blob = server.known_hosts.read_text().split()[1:3]
    from opsd.clients.ssh.known import HostKey  # noqa: PLC0415 - where it is needed

    return HostKey(kind, base64.b64decode(blob)).fingerprint


def tables(server: SshServer, *, gone: bool = False) -> str:
    text = f"""
[ssh]
user = "{server.user}"
key = "file:{server.identity_file}"
nodes = false
connect_timeout = "5s"

[[machines]]
name = "nas"
address = "{server.host}"
port = {server.port}
"""
    lost = f'\n[[machines]]\nname = "gone"\naddress = "127.0.0.1"\nport = {free_port()}\n'
    return text + lost * gone


# --- Whom to believe ---


@pytest.mark.real
def test_a_machine_is_believed_after_its_fingerprint_was_given(
    desk: Desk, sshd: SshServer
) -> None:
    desk.configure(tables(sshd))

    before = desk.type("nodes", "check")
    trusted = desk.type("nodes", "trust", "nas", "--fingerprint", fingerprint_of(sshd))
    after = desk.type("nodes", "check")

    assert before.status == 1
    assert "opsd nodes trust nas" in before.out
    assert (trusted.status, after.status) == (0, 0)
    assert fingerprint_of(sshd) in trusted.out
    assert "nas: logged in as" in after.out


@pytest.mark.real
def test_a_wrong_fingerprint_is_not_believed(desk: Desk, sshd: SshServer) -> None:
    desk.configure(tables(sshd))

    ended = desk.type("nodes", "trust", "nas", "--fingerprint", "SHA256:wrong")

    assert ended.status == 1
    assert "expected was SHA256:wrong" in ended.out
    assert not (desk.home / "state/known_hosts").exists()


@pytest.mark.real
def test_without_a_person_nobody_is_believed_and_the_command_is_given(
    desk: Desk, sshd: SshServer
) -> None:
    desk.configure(tables(sshd))

    ended = desk.type("nodes", "trust")

    assert ended.status == 1
    assert f"opsd nodes trust nas --fingerprint {fingerprint_of(sshd)}" in ended.out
    assert not (desk.home / "state/known_hosts").exists()


@pytest.mark.real
@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_a_person_is_asked_after_being_told_how_to_compare(
    desk: Desk,
    sshd: SshServer,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    status: int,
) -> None:
    class Person(io.StringIO):
        def isatty(self) -> bool:
            return True

    desk.configure(tables(sshd))
    monkeypatch.setattr("sys.stdin", Person(answer))

    ended = desk.type("nodes", "trust")

    assert ended.status == status
    assert "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" in ended.out
    assert f"nas at 127.0.0.1 shows {fingerprint_of(sshd)}" in ended.out
    assert (desk.home / "state/known_hosts").exists() == (status == 0)


@pytest.mark.real
def test_a_changed_key_is_replaced_only_when_that_is_said(desk: Desk, sshd: SshServer) -> None:
    desk.configure(tables(sshd))
    desk.type("nodes", "trust", "--yes")
    known = desk.home / "state/known_hosts"
    with ssh_rig.running() as installed_anew:
        desk.configure(tables(installed_anew))
        was = known.read_text()
        kept = desk.type("nodes", "trust", "--yes")
        is_kept = known.read_text() == was
        replaced = desk.type("nodes", "trust", "--yes", "--replace", "nas")
        checked = desk.type("nodes", "check")

    assert (kept.status, is_kept) == (1, True)
    assert "opsd nodes trust --replace nas" in kept.out
    assert fingerprint_of(sshd) in kept.out
    assert (replaced.status, checked.status) == (0, 0)


@pytest.mark.real
def test_a_machine_that_does_not_answer_keeps_no_other_from_being_believed(
    desk: Desk, sshd: SshServer
) -> None:
    desk.configure(tables(sshd, gone=True))

    answer = desk.json("nodes", "trust", "--yes")

    assert {one["name"]: one["decision"] for one in answer["nodes"]} == {
        "gone": "unreachable",
        "nas": "trusted",
    }
    assert answer["nodes"][1]["fingerprint"] == fingerprint_of(sshd)


def test_one_fingerprint_is_of_one_machine(desk: Desk) -> None:
    ended = desk.type("nodes", "trust", "--fingerprint", "SHA256:x")

    assert ended.status == 2
    assert "--fingerprint is of one machine" in ended.err


def test_without_a_way_to_log_in_the_table_to_add_is_named(desk: Desk) -> None:
    for command in ("check", "trust"):
        ended = desk.type("nodes", command)

        assert ended.status == 2
        assert "there is no table [ssh]" in ended.err
        assert "docs/nodes.md" in ended.err


@pytest.mark.real
def test_an_unknown_machine_is_told_with_those_that_there_are(desk: Desk, sshd: SshServer) -> None:
    desk.configure(tables(sshd))

    ended = desk.type("nodes", "check", "nax")

    assert ended.status == 2
    assert "there is no machine nax (known: nas)" in ended.err


# --- Whether opsd gets in ---


@pytest.mark.real
def test_each_machine_is_told_with_what_opsd_may_there(desk: Desk, sshd: SshServer) -> None:
    desk.configure(tables(sshd, gone=True))
    desk.type("nodes", "trust", "--yes")

    ended = desk.type("nodes", "check")
    answer = desk.json("nodes", "check")

    assert ended.status == 1
    assert "connection refused" in ended.out
    gone, nas = answer["nodes"]
    assert (gone["name"], nas["name"]) == ("gone", "nas")
    assert nas["error"] == ""
    assert nas["login_s"] > 0
    assert "connection refused" in gone["error"]


@pytest.mark.real
def test_the_private_key_is_never_printed(desk: Desk, sshd: SshServer) -> None:
    desk.configure(tables(sshd))
    secret_lines = sshd.identity_file.read_text().splitlines()[1:-1]

    told = "".join(
        desk.type("nodes", *arguments, "--debug").out + desk.type("nodes", *arguments).err
        for arguments in (("trust", "--yes"), ("check",), ("list",))
    )

    assert not any(line in told for line in secret_lines)


def test_a_key_that_is_none_is_a_mistake_in_the_configuration(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("ssh-ed25519 AAAA public\n")
    desk.configure(
        f'\n[ssh]\nkey = "file:{tmp_path}/key"\nnodes = false\n[[machines]]\nname="a"\n'
    )

    ended = desk.type("nodes", "check")

    assert ended.status == 2
    assert "no private key of OpenSSH" in ended.err


@pytest.mark.real
def test_a_check_of_everything_tries_the_logins(desk: Desk, sshd: SshServer) -> None:
    desk.configure(tables(sshd, gone=True))
    desk.type("nodes", "trust", "--yes")

    answer = desk.json("check")

    states = {one["what"]: one["state"] for one in answer["checks"]}
    assert (states["machine/nas"], states["machine/gone"]) == ("ok", "failed")


def test_a_check_of_everything_without_logins_says_nothing_of_machines(desk: Desk) -> None:
    told = desk.json("check")["checks"]

    assert not any(one["what"].startswith("machine") for one in told)


# --- The page ---


def state(area: str, name: str, summary: str = "fine") -> Finding:
    return finding(
        f"machine/{name}", check=f"{area}.state", severity=Severity.INFO, summary=summary
    )


def looked(run_id: str, at: datetime, *states: Finding, **changes: object) -> Run:
    return run(run_id, job="node-patches", started_at=at, slot=at, findings=states, **changes)


def opened(one: Finding, job: str = "node-patches") -> OpenFinding:
    return OpenFinding(finding=one, job=job, opened_at=ago(days=3))


def test_a_machine_is_as_old_as_the_last_run_that_could_look() -> None:
    rpi1, rpi2 = state("patches", "rpi1"), state("patches", "rpi2")
    newer = looked("2" * 12, ago(hours=1), rpi1, unseen=("machine/rpi2",))
    older = looked("1" * 12, ago(days=1), rpi1, rpi2)

    first, second = pages_of([opened(rpi1), opened(rpi2)], [newer, older], ())

    assert (first.seen_at, first.areas[0].is_old) == (newer.started_at, False)
    assert (second.seen_at, second.areas[0].is_old) == (older.started_at, True)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT, Outcome.INTERRUPTED])
def test_a_run_that_did_not_complete_saw_nobody(outcome: Outcome) -> None:
    rpi1 = state("patches", "rpi1")

    (page,) = pages_of([opened(rpi1)], [looked("1" * 12, ago(hours=1), rpi1, outcome=outcome)], ())

    assert page.seen_at is None
    assert page.areas[0].is_old


def test_a_machine_that_nobody_looked_at_is_on_the_page() -> None:
    (page,) = pages_of([], [], ["nas"])

    assert (page.name, page.areas, page.findings, page.seen_at) == ("nas", (), (), None)


def test_findings_below_a_machine_are_its_own_and_those_of_others_are_not() -> None:
    disk = finding("machine/rpi1/disk/sda", check="health.disk_failing")
    other = finding("machine/rpi10", check="health.disk_failing")

    pages = pages_of([opened(disk), opened(other), opened(finding())], [], ())

    assert {page.name: page.findings for page in pages} == {"rpi1": (disk,), "rpi10": (other,)}


def test_the_page_shows_every_machine_with_its_areas(desk: Desk) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    patches = [state("patches", "rpi1", "rpi1: 3 updates"), state("patches", "rpi2", "up to date")]
    health = [state("health", "rpi1", "48 °C")]
    dying = finding(
        "machine/rpi1/disk/sda", check="health.disk_failing", severity=Severity.WARNING
    )
    desk.record(
        looked("1" * 12, now - timedelta(hours=3), *patches),
        run(
            "2" * 12,
            job="node-health",
            started_at=now - timedelta(minutes=5),
            slot=now - timedelta(minutes=5),
            findings=(*health, dying),
        ),
    )

    listed = desk.type("nodes").lines
    answer = desk.json("nodes", "list")

    assert listed[0].split() == ["NODE", "STATE", "HEALTH", "PATCHES", "SEEN"]
    assert listed[1].split() == ["rpi1", "warning", "48", "°C", "3", "updates", "5", "min", "ago"]
    assert listed[2].split() == ["rpi2", "ok", "?", "up", "to", "date", "3", "h", "ago"]
    assert listed[-1] == "1 machine with findings: opsd findings"
    rpi1, rpi2 = answer["nodes"]
    assert rpi1["areas"]["patches"]["summary"] == "3 updates"
    assert rpi1["findings"][0]["check"] == "health.disk_failing"
    assert (rpi1["state"], rpi2["state"]) == ("warning", "ok")


def test_a_machine_that_could_not_be_read_lately_is_not_ok(desk: Desk) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    desk.record(
        looked("1" * 12, now - timedelta(days=2), state("patches", "rpi1", "up to date")),
        looked(
            "2" * 12, now - timedelta(hours=1), unseen=("machine/rpi1/patches", "machine/rpi1")
        ),
    )

    (page,) = desk.json("nodes")["nodes"]

    assert page["state"] == "unknown"
    assert page["areas"]["patches"]["is_old"]
    assert "2 days ago" in desk.type("nodes").out


def test_an_empty_page_says_what_to_do(desk: Desk) -> None:
    ended = desk.type("nodes")

    assert ended.status == 0
    assert "opsd nodes check" in ended.out
