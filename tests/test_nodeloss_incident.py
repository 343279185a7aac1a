"""What people are told of a lost node and of pods that hang."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from opsd.alerts.policy import Policy, advance
from opsd.cluster.nodeloss import wording
from opsd.cluster.nodeloss.facts import STOPPED_POSTING, UNKNOWN, Node, Pod
from opsd.cluster.nodeloss.incident import (
    Loss,
    Newest,
    Volume,
    about_control_plane,
    about_loss,
    about_node,
    about_pod,
)
from opsd.cluster.nodeloss.verdict import Advice, Kind, Verdict
from opsd.incidents import AlertState
from opsd.model import Fact, Finding, Message, OpenFinding, Severity

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
NODE = Node(
    name="rpi3",
    uid="n-1",
    created_at=NOW,
    ready=UNKNOWN,
    reason=STOPPED_POSTING,
    address="10.0.0.13",
)
POD = Pod(namespace="db", name="pg-0", uid="p-1", node="rpi3", owner="StatefulSet/pg")
SILENT = Verdict(kind=Kind.SILENT, advice=Advice.FENCE, evidence={"lease_silent_s": 61})
LOSS = Loss(
    node=NODE,
    verdict=SILENT,
    pods=(
        replace(POD, name="web-1", namespace="web", owner="ReplicaSet/web"),
        replace(POD, name="agent", owner="DaemonSet/agent", tolerates_s=None),
        replace(POD, name="proxy", is_static=True, owner="Node/rpi3"),
        replace(POD, name="a-0", owner=""),
        replace(POD, delete_at=NOW),
    ),
    databases=("db/pg-0",),
    volumes=(Volume(claim="db/data-pg-0", where="nfs 10.0.0.5:/export/db-data-pg-0"),),
    backups=(Newest(subject="database/db-pg/app", at=NOW - timedelta(hours=5), repository="usb"),),
)


def messages(*findings: Finding) -> tuple[Message, ...]:
    entries = [OpenFinding(finding=one, job="stuck-pods", opened_at=NOW) for one in findings]
    _, told = advance(AlertState(), entries, NOW, policy=Policy())
    return told


def test_a_lost_node_is_one_message_with_the_whole_story() -> None:
    stuck = about_pod(LOSS.pods[-1], SILENT)
    assert stuck

    finding = about_loss(LOSS, now=NOW)

    [message] = messages(finding, stuck)

    assert message.title == "Act now: rpi3 is lost; db/pg-0 and 1 more stay down"
    assert message.severity is Severity.CRITICAL
    for line in (
        "node/rpi3, since Sun 22 Nov 03:00 UTC",
        "stays_down: db/pg-0, db/a-0",
        "newest_backup: database/db-pg/app 5 h ago in usb",
        "proof: silent, not proven dead: what runs there may still write",
        "volumes: db/data-pg-0 on nfs 10.0.0.5:/export/db-data-pg-0",
        "Follows from it: pod/db/pg-0",
        f"Next: {finding.remedy}",
        "See docs/findings.md#node-lost",
    ):
        assert line in message.body.splitlines()


def test_what_kubernetes_replaces_itself_does_not_stay_down() -> None:
    finding = about_loss(replace(LOSS, pods=LOSS.pods[:3]), now=NOW)

    assert finding.summary == "rpi3 is lost"
    assert finding.facts["stays_down"] == ""


def test_a_single_pod_that_stays_down_is_named() -> None:
    finding = about_loss(replace(LOSS, pods=(POD,)), now=NOW)

    assert finding.summary == "rpi3 is lost; db/pg-0 stays down"


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (LOSS, "database/db-pg/app 5 h ago in usb"),
        (replace(LOSS, backups=()), "none is known of what hangs there"),
        (replace(LOSS, backups_unknown="usb is away"), "unknown: usb is away"),
        (replace(LOSS, databases=(), volumes=()), None),
    ],
)
def test_whether_there_is_a_backup_is_always_said(loss: Loss, told: str | None) -> None:
    assert about_loss(loss, now=NOW).facts.get("newest_backup") == told


@pytest.mark.parametrize(
    ("age", "told"),
    [
        (timedelta(minutes=59), "59 min"),
        (timedelta(hours=1), "1 h"),
        (timedelta(hours=47), "47 h"),
        (timedelta(hours=48), "2 d"),
        (timedelta(hours=-1), "0 min"),
    ],
)
def test_the_age_of_a_backup_is_told_roughly(age: timedelta, told: str) -> None:
    backups = (Newest(subject="share/nfs", at=NOW - age, repository="usb"),)

    finding = about_loss(replace(LOSS, backups=backups), now=NOW)

    assert finding.facts["newest_backup"] == f"share/nfs {told} ago in usb"


@pytest.mark.parametrize(
    ("taints", "silent_s", "is_said"),
    [
        ((), 111, True),
        ((), 110, False),
        (("node.kubernetes.io/unreachable:NoSchedule",), 111, True),
        (("node.kubernetes.io/unreachable:NoExecute",), 111, False),
    ],
)
def test_that_kubernetes_deletes_nothing_is_said(
    taints: tuple[str, ...], silent_s: int, *, is_said: bool
) -> None:
    verdict = replace(SILENT, evidence={"lease_silent_s": silent_s})
    loss = replace(LOSS, node=replace(NODE, taints=taints), verdict=verdict)

    assert ("evictions" in about_loss(loss, now=NOW).facts) is is_said


def test_a_node_that_is_emptied_on_purpose_wakes_nobody() -> None:
    finding = about_loss(replace(LOSS, verdict=replace(SILENT, during="drain")), now=NOW)

    assert finding.severity is Severity.WARNING
    assert finding.steady_for == timedelta(minutes=10)
    assert "during a drain" in finding.summary


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.is_lost])
def test_every_kind_of_loss_has_a_proof_and_a_remedy_that_fits_a_message(kind: Kind) -> None:
    loss = replace(LOSS, verdict=replace(SILENT, kind=kind))

    finding = about_loss(loss, now=NOW)

    assert len(finding.remedy) <= 240
    assert "{" not in finding.remedy
    assert len(str(finding.facts["proof"])) <= 80


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.is_lost])
def test_no_command_deletes_or_taints_where_life_was_seen(kind: Kind) -> None:
    remedy = wording.of_loss(NODE, replace(SILENT, kind=kind))

    assert ("taint" in remedy) is (kind is Kind.SILENT)
    assert "kubectl delete" not in remedy


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("advice", list(Advice))
def test_a_pod_is_told_when_somebody_must_look_or_its_node_is_lost(
    kind: Kind, advice: Advice
) -> None:
    finding = about_pod(POD, Verdict(kind=kind, advice=advice))

    own = {
        Kind.FINALIZER,
        Kind.UNSCHEDULED,
        Kind.NODE_GONE,
        Kind.NODE_RECREATED,
        Kind.KILL_HUNG,
        Kind.TEARDOWN_HUNG,
        Kind.MOUNT_HUNG,
    }
    of_node = {Kind.NODE_SICK, Kind.NODE_UNCLEAR}
    is_told = kind.is_lost or (advice is Advice.LOOK and kind in own | of_node)
    assert (finding is not None) is is_told
    if finding:
        assert finding.cause == ("" if kind in own else "node/rpi3")
        assert finding.severity is Severity.WARNING
        assert len(finding.summary) <= 120
        assert len(finding.remedy) <= 240
        assert "{" not in finding.summary + finding.remedy


@pytest.mark.parametrize(
    ("kind", "advice", "is_told"),
    [
        (Kind.NODE_SICK, Advice.LOOK, True),
        (Kind.NODE_UNCLEAR, Advice.LOOK, True),
        (Kind.NODE_UNCLEAR, Advice.WAIT, False),
        (Kind.NODE_SHUTTING_DOWN, Advice.WAIT, False),
        (Kind.RECOVERING, Advice.WAIT, False),
    ],
)
def test_a_node_that_only_has_to_wait_is_not_told(
    kind: Kind, advice: Advice, *, is_told: bool
) -> None:
    finding = about_node(NODE, Verdict(kind=kind, advice=advice))

    assert (finding is not None) is is_told


@pytest.mark.parametrize(
    ("evidence", "summary", "waits"),
    [
        ({"silent_nodes": "3 of 4: a, b, c"}, "3 of 4 nodes are silent at once", False),
        (
            {"controller_manager": "cp", "controller_manager_silent_s": 31},
            "the controller manager is silent: nobody notices a lost node",
            True,
        ),
        (
            {"api_error": "refused", "api_error_age_s": 1},
            "the API server does not answer: refused",
            True,
        ),
        (
            {
                "api_error": "refused",
                "controller_manager_silent_s": 31,
                "silent_nodes": "4 of 4: a, b, c, d",
            },
            "the API server does not answer: refused",
            True,
        ),
    ],
)
def test_a_control_plane_in_doubt_is_told_by_what_is_wrong(
    evidence: dict[str, Fact], summary: str, *, waits: bool
) -> None:
    verdict = Verdict(kind=Kind.CONTROL_PLANE_DEGRADED, advice=Advice.INHIBIT, evidence=evidence)

    finding = about_control_plane(verdict)

    assert finding
    assert finding.summary == summary
    assert bool(finding.steady_for) is waits


def test_that_we_just_began_is_no_news() -> None:
    verdict = Verdict(
        kind=Kind.CONTROL_PLANE_DEGRADED, advice=Advice.INHIBIT, evidence={"watched_for_s": 5}
    )

    assert about_control_plane(verdict) is None


def test_the_longest_names_fit() -> None:
    name = "n" * 253
    loss = replace(
        LOSS,
        node=replace(NODE, name=name),
        pods=tuple(replace(POD, name=f"{'p' * 240}-{number}") for number in range(110)),
    )

    [message] = messages(about_loss(loss, now=NOW))

    assert len(message.title) <= 200
    assert len(message.body) <= 3500
