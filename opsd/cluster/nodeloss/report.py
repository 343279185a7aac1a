"""From what a close look saw to what people are told. Pure.

Limits: nothing is said of nodes while the control plane is in doubt, not even that they are
well: what was open before stays open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from opsd.cluster.nodeloss.classify import Absent, judge_node, judge_pod
from opsd.cluster.nodeloss.facts import STANDARD, Node, Pod, Thresholds
from opsd.cluster.nodeloss.incident import Loss, about_loss, about_node, about_pod
from opsd.cluster.nodeloss.survey import Picture
from opsd.cluster.nodeloss.verdict import Verdict
from opsd.model import Finding

Research = Callable[[Loss], Loss]  # adds volumes and backups


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A pod that is being deleted, and why it is still there."""

    pod: Pod
    node: Node | Absent
    verdict: Verdict


def losses(picture: Picture, *, thresholds: Thresholds = STANDARD) -> Iterator[Loss]:
    """The lost nodes with their pods."""
    for node in picture.lost:
        sightings = picture.sightings.get(node.name, ())
        verdict = judge_node(node, sightings, thresholds=thresholds)
        if verdict is not None:
            pods = picture.pods.get(node.name, ())
            databases = tuple(pod.place for pod in pods if pod.is_postgres)
            yield Loss(node=node, verdict=verdict, pods=pods, databases=databases)


def cases(picture: Picture, *, thresholds: Thresholds = STANDARD) -> Iterator[Case]:
    """The pods that are being deleted, on lost nodes and elsewhere."""
    for node in picture.lost:
        for pod in picture.pods.get(node.name, ()):
            if pod.delete_at is not None:
                sightings = picture.sightings.get(node.name, ())
                yield Case(
                    pod=pod,
                    node=node,
                    verdict=judge_pod(pod, node, sightings, now=picture.at, thresholds=thresholds),
                )
    for pod in picture.hanging:
        where = picture.nodes.get(pod.node) or picture.absent[pod.node]
        verdict = judge_pod(pod, where, now=picture.hung_at, thresholds=thresholds)
        yield Case(pod=pod, node=where, verdict=verdict)


def findings(
    picture: Picture, *, research: Research, now: datetime, thresholds: Thresholds = STANDARD
) -> Iterator[Finding]:
    """All that people should know.

    Args:
        picture: of a control plane that is believed.
        research: looks up what is on a lost node.
        now: aware UTC; for the age of backups.
        thresholds: after how long something means something.
    """
    lost = {node.name for node in picture.lost}
    for loss in losses(picture, thresholds=thresholds):
        yield about_loss(research(loss), now=now)
    told: Sequence[Node] = [node for name, node in picture.nodes.items() if name not in lost]
    for node in told:
        verdict = judge_node(node, thresholds=thresholds)
        if verdict is not None and (finding := about_node(node, verdict)):
            yield finding
    for case in cases(picture, thresholds=thresholds):
        if finding := about_pod(case.pod, case.verdict):
            yield finding
