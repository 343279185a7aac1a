"""The job over machines whose answers are written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from jobs.node_patches import JOB, Settings
from opsd.errors import OpsdError, PermanentError, TransientError
from opsd.hosts import lifetimes
from opsd.hosts.lifetimes import OLD_AFTER
from opsd.hosts.machine import Machine
from opsd.hosts.script import Section
from opsd.job import Context
from opsd.model import Change, Finding, OpenFinding, Outcome, Run, Severity
from opsd.runner import execute
from opsd.testing import FakeClock, MemoryFleet, context
from opsd.triage import transitions
from tests.packaging import CONTROL, HEALTHY, NODE, NOW, ROUTER, fixture, lists, system

if TYPE_CHECKING:
    from opsd.clients.kube.client import Kube

SECURITY = (
    "1 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.\n"
    "Inst libssl3t64 [3.5.7-1] (3.5.7-2 Debian-Security:13/stable-security [arm64])\n@policy\n"
)
PENDING: Mapping[str, Section | str] = {**HEALTHY, "apt": SECURITY}
AWAY = TransientError("log in to rpi3: 192.0.2.3:22: connection timed out")


def made(
    tmp_path: Path,
    answers: Mapping[Machine, Mapping[str, Section | str] | OpsdError],
    *,
    unknown: str = "",
    now: datetime = NOW,
) -> Context:
    by_name = {machine.name: answer for machine, answer in answers.items()}
    fleet = MemoryFleet(answers, by_name, unknown=unknown)
    return context(scratch=tmp_path, fleet=fleet, clock=FakeClock(now), job=JOB.name)


def ran(ctx: Context) -> Run:
    return execute(JOB, Settings(), ctx)


def told(run: Run) -> dict[tuple[str, str], Finding]:
    return {one.key: one for one in run.findings if one.check != "patches.state"}


def opened(run: Run) -> list[OpenFinding]:
    return [
        OpenFinding(finding=one, job=JOB.name, opened_at=NOW - timedelta(days=1))
        for one in run.findings
    ]


def changed(before: Run, after: Run) -> set[tuple[Change, str]]:
    found = transitions(after, opened(before), at=NOW)
    return {(one.change, one.finding.check) for one in found}


def test_every_machine_has_one_line_for_the_table(tmp_path: Path) -> None:
    run = ran(made(tmp_path, {CONTROL: HEALTHY, NODE: PENDING, ROUTER: HEALTHY}))

    lines = {one.subject: one for one in run.findings if one.check == "patches.state"}
    assert run.outcome is Outcome.COMPLETED
    assert set(lines) == {"machine/rpi1", "machine/rpi3", "machine/gate"}
    assert all(line.severity is Severity.INFO for line in lines.values())
    assert set(told(run)) == {("patches.security_pending", "machine/rpi3/updates")}


def test_machines_are_asked_together_and_once(tmp_path: Path) -> None:
    ctx = made(tmp_path, {CONTROL: HEALTHY, NODE: HEALTHY})
    fleet = ctx.fleet
    assert isinstance(fleet, MemoryFleet)

    ran(ctx)

    assert len(fleet.scripts) == 1


def test_a_machine_that_is_away_is_unknown_and_spoils_no_other(tmp_path: Path) -> None:
    run = ran(made(tmp_path, {CONTROL: HEALTHY, NODE: AWAY}))

    found = told(run)[("patches.unknown", "machine/rpi3/patches")]
    assert run.outcome is Outcome.COMPLETED
    assert set(run.unseen) == {"machine/rpi3", "release", "cluster/kubernetes"}
    assert found.cause == "machine/rpi3"
    assert "connection timed out" in found.summary


def test_what_is_true_of_many_machines_is_told_once_with_their_names(tmp_path: Path) -> None:
    old = {**HEALTHY, "system": system(fixture("os-release_debian12.txt"))}
    machines = {replace(NODE, name=f"rpi{n}"): old for n in range(1, 6)}

    run = ran(made(tmp_path, machines))

    (found,) = told(run).values()
    assert found.subject == "release/debian-12"
    assert found.summary == (
        "Debian GNU/Linux 12 (bookworm): long-term support only, until 2028-06-30: "
        "rpi1, rpi2 and 3 more"
    )
    assert found.facts["machines"] == "rpi1, rpi2, rpi3, rpi4, rpi5"


def test_what_was_true_of_a_machine_that_is_away_now_stays_open(tmp_path: Path) -> None:
    old = {**HEALTHY, "system": system(fixture("os-release_debian12.txt"))}
    before = ran(made(tmp_path, {CONTROL: HEALTHY, NODE: old}))

    away = ran(made(tmp_path, {CONTROL: HEALTHY, NODE: AWAY}))
    upgraded = ran(made(tmp_path, {CONTROL: HEALTHY, NODE: HEALTHY}))

    assert (Change.RESOLVED, "patches.release_old") not in changed(before, away)
    assert changed(before, upgraded) == {(Change.RESOLVED, "patches.release_old")}


def test_what_was_open_on_a_machine_that_is_away_stays_open(tmp_path: Path) -> None:
    before = ran(made(tmp_path, {CONTROL: PENDING, NODE: PENDING}))

    after = ran(made(tmp_path, {CONTROL: HEALTHY, NODE: AWAY}))

    gone = {
        one.finding.subject
        for one in transitions(after, opened(before), at=NOW)
        if one.change is Change.RESOLVED
    }
    assert gone == {"machine/rpi1/updates"}


def test_updates_that_were_installed_are_over(tmp_path: Path) -> None:
    before, after = ran(made(tmp_path, {NODE: PENDING})), ran(made(tmp_path, {NODE: HEALTHY}))

    assert changed(before, after) == {(Change.RESOLVED, "patches.security_pending")}


def test_updates_are_not_over_because_the_lists_are_gone(tmp_path: Path) -> None:
    before = ran(made(tmp_path, {NODE: PENDING}))

    after = ran(made(tmp_path, {NODE: {**HEALTHY, "lists": "@now 1\n"}}))

    assert changed(before, after) == {(Change.OPENED, "patches.unknown")}


def test_an_answer_that_was_cut_off_leaves_the_rest_known(tmp_path: Path) -> None:
    cut = {name: answer for name, answer in PENDING.items() if name not in ("kernel", "services")}

    run = ran(made(tmp_path, {NODE: cut}))

    assert run.outcome is Outcome.COMPLETED
    assert ("patches.security_pending", "machine/rpi3/updates") in told(run)
    assert [subject for _, subject in told(run)].count("machine/rpi3/reboot") == 1
    assert set(run.unseen) == {"machine/rpi3/reboot", "machine/rpi3/services"}


@pytest.mark.parametrize("error", [AWAY, PermanentError("log in to rpi3: host key changed")])
def test_a_run_that_could_read_no_machine_has_failed(tmp_path: Path, error: OpsdError) -> None:
    run = ran(made(tmp_path, {NODE: error}))

    assert run.outcome is Outcome.FAILED
    assert run.error == "no machine could be read"


def test_nodes_that_nobody_could_name_leave_theirs_open_and_hide_no_other(
    tmp_path: Path,
) -> None:
    before = ran(made(tmp_path, {ROUTER: PENDING, NODE: PENDING}))

    silent = ran(made(tmp_path, {ROUTER: HEALTHY}, unknown="list nodes: connection refused"))
    still = ran(made(tmp_path, {ROUTER: HEALTHY}, unknown="list nodes: connection refused"))

    for after in (silent, still):
        gone = {
            one.finding.subject
            for one in transitions(after, opened(before), at=NOW)
            if one.change is Change.RESOLVED
        }
        assert after.outcome is Outcome.COMPLETED
        assert ("patches.unknown", "cluster/machines") in told(after)
        assert gone == {"machine/gate/updates"}


def test_a_node_that_was_removed_is_forgotten(tmp_path: Path) -> None:
    before = ran(made(tmp_path, {ROUTER: HEALTHY, NODE: PENDING}))

    after = ran(made(tmp_path, {ROUTER: HEALTHY}))

    assert changed(before, after) == {
        (Change.RESOLVED, "patches.security_pending"),
        (Change.RESOLVED, "patches.state"),
    }


def test_a_cluster_that_is_away_ends_nothing_that_it_said_of_kubelets(tmp_path: Path) -> None:
    class Away:
        def list(self, *_: object) -> object:
            raise TransientError("list nodes: connection refused")

    ctx = replace(made(tmp_path, {NODE: HEALTHY}), open_kube=lambda _: cast("Kube", Away()))

    run = ran(ctx)

    assert run.outcome is Outcome.COMPLETED
    assert run.unseen == ("machine/rpi3/kubernetes",)


def test_without_a_cluster_the_kubelet_that_runs_is_not_asked_for(tmp_path: Path) -> None:
    packages = "@packages=9\nhi |kubelet|1.35.3-1.1|arm64\nhi |kubeadm|1.35.3-1.1|arm64\n"

    run = ran(made(tmp_path, {NODE: {**HEALTHY, "dpkg": packages}}))

    assert (run.outcome, told(run)) == (Outcome.COMPLETED, {})


@pytest.mark.parametrize(("past", "is_told"), [(0, False), (1, True)])
def test_an_old_table_of_releases_says_so(
    tmp_path: Path,
    past: int,
    is_told: bool,  # noqa: FBT001 - one of a table
) -> None:
    day = lifetimes.table().asof + OLD_AFTER + timedelta(days=past)
    now = datetime(day.year, day.month, day.day, tzinfo=UTC)

    run = ran(made(tmp_path, {NODE: {**HEALTHY, "lists": lists()}}, now=now))

    assert (("patches.lifetimes_old", "opsd/lifetimes") in told(run)) is is_told


def test_names_from_a_machine_cannot_forge_or_break_what_is_told(tmp_path: Path) -> None:
    hostile = "iF |evil\x1b[2J\\udcff\u202e|1|all\n@packages=3\n"

    run = ran(made(tmp_path, {NODE: {**HEALTHY, "dpkg": hostile}}))

    text = "".join(one.summary + str(dict(one.facts)) for one in run.findings)
    assert ("patches.packages_broken", "machine/rpi3/packages") in told(run)
    assert "\x1b" not in text
    assert "\u202e" not in text
