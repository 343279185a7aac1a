"""What is said of mounts that hang: one incident, who waits, and the next command."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from opsd.clients.rpc import Answer, Outcome
from opsd.cluster.hungnfs.affected import Cluster, User, affected
from opsd.cluster.hungnfs.findings import about_machine, about_server
from opsd.cluster.hungnfs.remedies import for_machine
from opsd.hosts.machine import Machine
from opsd.hosts.nfs.answers import Answers, Logged, Look, Sight, Task
from opsd.hosts.nfs.judging import OPSD, Health, Server, State, Verdict
from opsd.hosts.nfs.mounts import Mount
from opsd.model import Finding, Severity, Unseen

DB, APP, GONE = (f"0a1b2c3d-0000-4000-8000-00000000000{number}" for number in (1, 2, 3))
RPI1 = Machine(name="rpi1", address="10.0.0.11")
CLUSTER = Cluster(
    users={
        DB: User(namespace="db", name="pg-0", is_database=True),
        APP: User(namespace="web", name="app-7f", is_leaving=True),
    },
    claims={"pvc-1": "db/data-pg-0", "pvc-2": "web/files"},
    sources={"nas:/export/static": "pvc-2"},
)
ALIVE, SILENT = (
    Answer(outcome=Outcome.ANSWERED),
    Answer(outcome=Outcome.SILENT, detail="no answer in time"),
)
HUNG = Look(sight=Sight.HUNG, detail="no answer within 5 s")


def mount(number: int, uid: str = "", **changes: Any) -> Mount:
    path = f"/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~nfs/pvc-{number}"
    made = Mount(
        server="nas",
        device="0:52",
        source=f"nas:/export/{number}",
        paths=(path if uid else f"/mnt/{number}",),
        options={"hard": "", "vers": "4.2", "addr": "10.0.0.5"},
    )
    return replace(made, **changes)


def verdict(state: State, at: Mount, *, look: Look = HUNG, call: Answer | None = None) -> Verdict:
    return Verdict(machine="rpi1", mount=at, state=state, look=look, call=call)


def said(*verdicts: Verdict, cluster: Cluster = CLUSTER, **answers: Any) -> dict[str, Finding]:
    """Findings about the machine, by check."""
    told = Answers(mounts=tuple(one.mount for one in verdicts), **answers)
    found = about_machine(RPI1, told, verdicts, cluster)
    return {one.check: one for one in found if isinstance(one, Finding)}


def test_pods_databases_and_claims_are_found_by_the_mounts_themselves() -> None:
    static = mount(9, source="nas:/export/static")

    waiting = affected([mount(1, DB), mount(2, APP), mount(3, GONE), static], CLUSTER)

    assert [str(user) for user in waiting.databases] == ["db/pg-0"]
    assert [str(user) for user in waiting.leaving] == ["web/app-7f"]
    assert waiting.claims == ("db/data-pg-0", "web/files")
    assert waiting.unnamed == 1
    assert str(waiting) == "database db/pg-0 and 2 other pods"


@pytest.mark.parametrize(
    ("uids", "words"),
    [([], ""), ([GONE], "1 pod"), ([APP, GONE], "2 pods"), ([DB], "database db/pg-0")],
)
def test_who_waits_is_said_in_words(uids: list[str], words: str) -> None:
    assert str(affected([mount(1, uid) for uid in uids], CLUSTER)) == words


def test_a_dead_server_is_one_incident_with_all_that_waits() -> None:
    server = Server(
        name="nas",
        health=Health.DOWN,
        calls={OPSD: SILENT, "rpi1": SILENT},
        hanging=("rpi1",),
    )
    verdicts = [
        verdict(State.SERVER_DOWN, mount(1, DB)),
        verdict(State.SERVER_DOWN, mount(2, APP)),
    ]

    (down,) = about_server(server, verdicts, CLUSTER)
    below = said(*verdicts)

    assert isinstance(down, Finding)
    assert (down.check, down.subject) == ("nfs.server_down", "nfs/nas")
    assert down.severity is Severity.CRITICAL
    assert down.summary == (
        "file server nas does not answer: database db/pg-0 and 1 other pod wait for it"
    )
    assert down.facts["asked_from"] == "opsd: no answer in time, rpi1: no answer in time"
    assert (down.facts["databases"], down.facts["hangs_on"]) == ("db/pg-0", "rpi1")
    assert below["nfs.hung"].cause == down.subject
    assert not down.steady_for


def test_a_server_that_answers_but_whose_disks_hang_is_told_so() -> None:
    server = Server(name="nas", health=Health.STUCK, calls={OPSD: ALIVE})

    (down,) = about_server(server, [verdict(State.SERVER_DOWN, mount(1, APP))], CLUSTER)

    assert isinstance(down, Finding)
    assert "answers calls, but none of its mounts does" in down.summary


def test_of_a_server_that_is_well_nothing_is_said() -> None:
    server = Server(name="nas", health=Health.ALIVE, calls={OPSD: SILENT, "rpi1": ALIVE})

    assert list(about_server(server, [verdict(State.OK, mount(1))], CLUSTER)) == []


def test_a_server_that_one_place_did_not_reach_is_unknown_and_stays_as_it_was() -> None:
    server = Server(name="nas", health=Health.UNKNOWN, calls={OPSD: SILENT})

    told, unseen = about_server(server, [], CLUSTER)

    assert isinstance(told, Finding)
    assert (told.check, told.subject) == ("nfs.unknown", "nfs/nas")
    assert unseen == Unseen(subject="nfs/nas")


@pytest.mark.parametrize(
    ("state", "check", "severity"),
    [
        (State.HUNG, "nfs.hung", Severity.CRITICAL),
        (State.PATH_BROKEN, "nfs.path_broken", Severity.CRITICAL),
        (State.STALE, "nfs.stale", Severity.CRITICAL),
        (State.SLOW, "nfs.slow", Severity.WARNING),
    ],
)
def test_each_state_is_a_check_of_its_own(state: State, check: str, severity: Severity) -> None:
    found = said(verdict(state, mount(1, DB)))

    assert set(found) == {check, "nfs.state"}
    assert found[check].subject == "machine/rpi1/nfs/nas"
    assert found[check].severity is severity
    assert found[check].cause == ""


@pytest.mark.parametrize(("uid", "severity"), [(DB, Severity.CRITICAL), (APP, Severity.WARNING)])
def test_errors_are_worst_for_a_database(uid: str, severity: Severity) -> None:
    failing = verdict(State.ERRORS, mount(1, uid), look=Look(sight=Sight.ERROR, detail="EIO"))

    assert said(failing)["nfs.errors"].severity is severity


def test_mounts_of_one_server_in_one_state_are_one_finding() -> None:
    found = said(
        verdict(State.HUNG, mount(1, DB), call=ALIVE),
        verdict(State.HUNG, mount(2, APP), call=ALIVE),
    )

    hung = found["nfs.hung"]
    assert hung.summary == (
        "2 mounts of nas hang on rpi1, though its server answers: database db/pg-0 and 1 other pod"
    )
    assert hung.facts["exports"] == "/export/1, /export/2"
    assert found["nfs.state"].facts["hung"] == 2


def test_evidence_is_told_with_it() -> None:
    tasks = (
        Task(pid=812, name="postgres", wchan="rpc_wait_bit_killable", pod=DB),
        Task(pid=999, name="dd", pod=GONE),
    )

    hung = said(
        verdict(State.HUNG, mount(1, DB)),
        tasks=tasks,
        log={"nas": Logged(is_well=False, ago_s=320.4)},
    )["nfs.hung"]

    assert hung.facts["processes"] == "812 postgres in rpc_wait_bit_killable"
    assert hung.facts["processes_waiting"] == 1
    assert hung.facts["kernel"] == "not responding, 320 s ago"
    assert hung.facts["options"] == "hard,vers=4.2"


def test_a_mount_that_nobody_may_look_at_is_unknown_with_the_line_that_helps() -> None:
    refused = Look(sight=Sight.REFUSED, detail="sudo: a password is required")
    one = verdict(State.UNKNOWN, mount(1, DB), look=refused)

    observed = list(about_machine(RPI1, Answers(mounts=(one.mount,)), [one], CLUSTER))

    (unknown,) = (
        one for one in observed if isinstance(one, Finding) and one.check == "nfs.unknown"
    )
    assert "a password is required" in unknown.summary
    assert "NOPASSWD: /usr/bin/timeout ^-s KILL [0-9]+ stat" in unknown.remedy
    assert Unseen(subject="machine/rpi1/nfs/nas") in observed


def test_what_could_not_be_read_is_never_a_machine_without_mounts() -> None:
    told = Answers(unreadable=("mounts: it did not answer in time, and was ended",))

    observed = list(about_machine(RPI1, told, [], CLUSTER))

    found = {one.check: one for one in observed if isinstance(one, Finding)}
    assert "did not answer in time" in found["nfs.unknown"].summary
    assert found["nfs.unknown"].cause == "machine/rpi1"
    assert found["nfs.state"].summary == "not known"
    assert Unseen(subject="machine/rpi1/nfs") in observed


def test_a_machine_whose_mounts_answer_has_one_line() -> None:
    well = Look(sight=Sight.ANSWERED, seconds=0.0123)

    found = said(verdict(State.OK, mount(1), look=well), verdict(State.OK, mount(2), look=well))

    assert set(found) == {"nfs.state"}
    assert found["nfs.state"].summary == "2 mounts answer"
    assert found["nfs.state"].facts["slowest_s"] == 0.012


def steps(
    state: State, *mounts: Mount, cluster: Cluster = CLUSTER, tasks: tuple[Task, ...] = ()
) -> tuple[tuple[str, ...], str]:
    verdicts = [verdict(state, one) for one in mounts]
    plan = for_machine(state, verdicts, affected(mounts, cluster), tasks)
    return plan.steps, plan.never


def test_a_stale_mount_is_mended_by_a_new_pod() -> None:
    found, never = steps(State.STALE, mount(1, DB))

    assert found[0] == "kubectl -n db delete pod pg-0 --wait=false"
    assert never == ""


def test_under_a_running_database_no_mount_is_torn_away() -> None:
    found, never = steps(State.HUNG, mount(1, DB))

    assert found[0].startswith("wait two minutes")
    assert found[1].startswith("kubectl -n db delete pod pg-0")
    assert "umount -f" in never
    assert "db/pg-0" in never


def test_a_mount_of_pods_that_are_leaving_is_unmounted_first_by_force_then_lazily() -> None:
    found, never = steps(State.HUNG, mount(2, APP), tasks=(Task(pid=812, name="app", pod=APP),))

    order = [
        next(number for number, step in enumerate(found) if word in step)
        for word in ("umount -f", "umount -l", "restart kubelet", "kill -9 812", "sysrq")
    ]
    assert order == sorted(order)
    assert order[0] == 0
    assert never.startswith("umount -l")


def test_while_the_cluster_is_silent_no_mount_is_torn_away_either() -> None:
    found, never = steps(State.HUNG, mount(1, DB), cluster=Cluster(problem="down"))

    assert "umount" not in found[0]
    assert "kubectl get pods -A --field-selector spec.nodeName=rpi1" in found[1]
    assert "umount -f" in never


def test_paths_are_given_to_the_shell_as_they_are() -> None:
    odd = mount(1, paths=("/mnt/my\\040share's",))

    found, _ = steps(State.HUNG, odd)

    assert "sudo umount -f '/mnt/my share'\"'\"'s'" in found[0]


def test_a_soft_mount_is_named_as_the_reason_for_errors() -> None:
    found, _ = steps(State.ERRORS, mount(1, DB, options={"soft": ""}))

    assert any("hard instead of soft" in step for step in found)
    assert any("db/pg-0 for damage" in step for step in found)


@pytest.mark.parametrize("state", [one for one in State if one not in {State.OK, State.UNKNOWN}])
def test_hostile_names_fit_on_the_screen(state: State) -> None:
    odd = mount(1, DB, server="n\x1b[31mas\n" * 40, source="x\udcff:/\x07" * 50)

    for finding in said(verdict(state, odd)).values():
        assert len(finding.summary) <= 120
        assert finding.summary.isprintable()
        assert finding.remedy.isprintable()
        finding.subject.encode()
        assert all(str(value).isprintable() for value in finding.facts.values())
