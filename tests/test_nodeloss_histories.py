"""Random hours of outages: who is cut off is told, who is not is never blamed, and all ends."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
import structlog

from jobs import stuck_pods
from jobs.stuck_pods import Eyes, Settings
from opsd.alerts.policy import Policy, advance
from opsd.clients.kube.client import Kube
from opsd.incidents import AlertState
from opsd.model import Change, Finding, Message, OpenFinding, Run
from opsd.runner import execute
from opsd.testing import context
from opsd.triage import transitions
from tests.rig.simcluster import START, SimCluster, SimKube, SimNode

SEEDS, BATCH = 200, 10
HOUR_S = 2400
CALM_S = 600  # at the end, with everything mended
#: The API's word (50 to 60 s), a run that begins (10 s), and a doubt that has to pass (90 s).
FOUND_WITHIN_S = 180
FORGOTTEN_WITHIN_S = 25


@dataclass(frozen=True, slots=True)
class SimClock:
    """Our own clocks, which are right."""

    cluster: SimCluster

    def now(self) -> datetime:
        return START + timedelta(seconds=self.cluster.now_s)

    def monotonic(self) -> float:
        return float(self.cluster.now_s)

    @property
    def boot_id(self) -> str:
        return str(self.cluster.boot)

    def seconds(self) -> float:
        return 1000.0 + self.cluster.now_s


class Story:
    """One history, and opsd in it."""

    def __init__(self, seed: int, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a story that can be told again
        count = self.random.randint(3, 6)
        self.cluster = SimCluster(
            nodes=[SimNode(name=f"n{n}", phase=self.random.randrange(10)) for n in range(count)]
        )
        self.clock = SimClock(self.cluster)
        self.scratch = scratch / str(seed)
        self.scratch.mkdir()
        self.open: dict[tuple[str, str], OpenFinding] = {}
        self.alerts = AlertState()
        self.messages: list[Message] = []
        self.found_s: dict[str, int] = {}  # by name: when a run last found it lost
        self.doubtful_s = 0  # the last moment in which nobody could be blamed
        monkeypatch.setattr("jobs.stuck_pods.time.sleep", self.cluster.advance)

    def happen(self, cluster: SimCluster) -> None:
        """Something, in this second; seldom."""
        for node in cluster.nodes:
            if node.is_up and self.random.random() < 1 / 900:
                cluster.cut(node)
            elif not node.is_up and self.random.random() < 1 / 300:
                cluster.mend(node)
            elif self.random.random() < 1 / 2000:
                node.is_behind = not node.is_behind
        self.happen_to_the_control_plane(cluster, self.random.random())
        self.note_doubt()

    def happen_to_the_control_plane(self, cluster: SimCluster, chance: float) -> None:
        """Something else, as chance has it."""
        if not cluster.api_up and chance < 1 / 150:
            cluster.api_up = True
            cluster.restart_kcm()
        elif cluster.api_up and not cluster.kcm_up and chance < 1 / 240:
            cluster.restart_kcm()
        elif 0.5 < chance < 0.5 + 1 / 1200:
            cluster.api_up = False
        elif 0.6 < chance < 0.6 + 1 / 1200:
            cluster.kcm_up = False
        elif 0.7 < chance < 0.7 + 1 / 1200:
            cluster.server_offset += timedelta(hours=self.random.choice((-1, 1)))
        elif 0.8 < chance < 0.8 + 1 / 2400:
            cluster.boot += 1
            self.doubtful_s = cluster.now_s  # what was remembered is void

    def note_doubt(self) -> None:
        cluster = self.cluster
        down = sum(not node.is_up for node in cluster.nodes)
        if not (cluster.api_up and cluster.kcm_up) or down * 2 > len(cluster.nodes):
            self.doubtful_s = cluster.now_s

    def mend(self) -> None:
        """Nothing happens any more, and everything works."""
        self.cluster.events = lambda _cluster: None
        self.cluster.api_up = True
        self.cluster.restart_kcm()
        for node in self.cluster.nodes:
            self.cluster.mend(node)
            node.is_behind = False

    def runs(self, until_s: int) -> Iterator[Run]:
        """opsd's runs, one each minute, told by the real policy."""
        while self.cluster.now_s < until_s:
            run = self._run()
            self._tell(run)
            yield run
            self.cluster.advance(60 - self.cluster.now_s % 60)

    def _run(self) -> Run:
        slot = START + timedelta(seconds=self.cluster.now_s - self.cluster.now_s % 60)
        ctx = context(
            scratch=self.scratch,
            clock=self.clock,
            job="stuck-pods",
            slot=slot,
            timeout=timedelta(minutes=5),
            kube=cast("Kube", SimKube(self.cluster)),
        )
        eyes = Eyes(uptime=self.clock)
        job = replace(stuck_pods.JOB, run=lambda ctx, own: stuck_pods.watch(ctx, own, eyes))
        return execute(job, Settings(ports=()), ctx)

    def _tell(self, run: Run) -> None:
        at = self.clock.now()
        for finding in run.findings:
            if finding.check == "node.lost":
                self.found_s[finding.subject.removeprefix("node/")] = self.cluster.now_s
        for change in transitions(run, tuple(self.open.values()), at=at):
            self.open.pop(change.finding.key, None)
            if change.change is Change.RESOLVED:
                self._check_over(change.finding)
            else:
                self.open[change.finding.key] = OpenFinding(
                    finding=change.finding, job=run.job, opened_at=change.opened_at
                )
        self.alerts, told = advance(self.alerts, tuple(self.open.values()), at, policy=Policy())
        self.messages += told

    def _check_over(self, finding: Finding) -> None:
        """Nobody hears that a node is back which was never back since it was found lost."""
        for node in self.cluster.nodes:
            if finding.key == ("node.lost", f"node/{node.name}") and not node.is_up:
                assert node.down_since_s > self.found_s[node.name]


@pytest.mark.parametrize("batch", range(SEEDS // BATCH))
def test_two_hundred_hours_of_outages(
    batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        with structlog.testing.capture_logs():
            titles += live_through(Story(seed, tmp_path, monkeypatch))

    for happened in ("is lost", "nodes are silent at once", "Resolved", "API server", "manager"):
        assert any(happened in title for title in titles), happened


def live_through(story: Story) -> list[str]:
    """Tell the whole story; the titles of its messages."""
    cluster = story.cluster
    cluster.events = story.happen
    for run in story.runs(HOUR_S):
        check(story, run)
    story.mend()
    for run in story.runs(HOUR_S + CALM_S):
        check(story, run)

    assert story.open == {}
    story.alerts, _ = advance(
        story.alerts, (), story.clock.now() + timedelta(hours=2), policy=Policy()
    )
    assert [one for one in story.alerts.incidents if one.told is not None] == []
    return [message.title for message in story.messages]


def check(story: Story, run: Run) -> None:
    """What must be so after every run."""
    now_s = story.cluster.now_s
    lost = {one.subject for one in run.findings if one.check == "node.lost"}
    told_open = {one.finding.subject for one in story.open.values()}
    calm_s = now_s - story.doubtful_s
    for node in story.cluster.nodes:
        subject = f"node/{node.name}"
        if node.is_up and now_s - node.up_since_s > FORGOTTEN_WITHIN_S:
            assert subject not in lost, f"{subject} is blamed at {now_s} and well"
        is_long_gone = not node.is_up and now_s - node.down_since_s > FOUND_WITHIN_S
        if is_long_gone and calm_s > FOUND_WITHIN_S:
            assert subject in told_open, f"{subject} is gone at {now_s} and not told"
    for finding in run.findings:
        assert "kubectl delete" not in finding.remedy
