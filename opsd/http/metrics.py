"""Figures for Prometheus. The label is ``task`` and never ``job``, which belongs to the scraper.

What is read from open findings is as old as the last run of the job that looks there;
``opsd_run_last_success_timestamp_seconds`` says how old that is.

Limits: a label holds names of databases, machines and shares, as findings do.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import CollectorRegistry

from opsd import __version__
from opsd.errors import OpsdError
from opsd.http.app import Answer
from opsd.http.figures import BUCKETS_S, Figures
from opsd.model import Fact, OpenFinding, Severity
from opsd.state import State

PATCHES, STUCK, BLOCKED = "patches.state", "pod.stuck", "upgrade.blocked"  # checks of jobs


class Metrics:
    """Everything that opsd measures, as of each request."""

    def __init__(self, state: State, intervals_s: Mapping[str, float]) -> None:
        """`intervals_s` is by job the longest time between two of its slots."""
        self._state = state
        self._intervals_s = intervals_s
        self._figures = Figures(intervals_s)
        self._lock = threading.Lock()
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def answer(self) -> Answer:
        """``/metrics``, in the text format."""
        with self._lock:
            text = generate_latest(self._registry).decode()
        return Answer(body=text, content_type=CONTENT_TYPE_PLAIN_0_0_4)

    def collect(self) -> Iterator[Metric]:
        """The families of metrics; called by the registry."""
        yield InfoMetricFamily("opsd_build", "This opsd", value={"version": __version__})
        readable = GaugeMetricFamily("opsd_state_readable", "Whether the state could be read")
        try:
            self._figures.read(self._state)
            findings = self._state.open_findings()
            waiting = len(self._state.undelivered())
            running = Counter(job for job, *_ in self._state.running())
        except OpsdError:
            readable.add_metric([], 0)
            yield readable
            return
        readable.add_metric([], 1)
        yield readable
        yield _gauge(
            "opsd_messages_waiting", "Messages that nobody has taken yet", [((), waiting)]
        )
        yield _gauge(
            "opsd_runs_under_way",
            "Runs that began and have not ended",
            [((task,), running[task]) for task in self._intervals_s],
            labels=("task",),
        )
        yield from _of_runs(self._figures, self._intervals_s)
        yield from _of_findings(findings)
        yield from _of_cluster(findings)


def _of_runs(figures: Figures, intervals_s: Mapping[str, float]) -> Iterator[Metric]:
    yield _gauge(
        "opsd_task_schedule_interval_seconds",
        "The longest time between two due times of a task",
        [((task,), interval_s) for task, interval_s in intervals_s.items()],
        labels=("task",),
    )
    yield _gauge(
        "opsd_run_last_success_timestamp_seconds",
        "End of the last run of a task that completed, or that made a backup of a target",
        [(key, at.timestamp()) for key, at in figures.succeeded_at.items()],
        labels=("task", "target"),
    )
    ended = CounterMetricFamily(
        "opsd_runs", "Slots and runs that ended", labels=("task", "outcome")
    )
    for (task, outcome), count in sorted(figures.ended.items()):
        ended.add_metric((task, outcome.value), count)
    yield ended
    took = HistogramMetricFamily("opsd_run_duration_seconds", "Time of a run", labels=("task",))
    for task, durations in sorted(figures.durations.items()):
        limits = (*map(str, BUCKETS_S), "+Inf")
        counts = itertools.accumulate(durations.buckets)
        took.add_metric((task,), list(zip(limits, counts, strict=True)), durations.sum_s)
    yield took
    yield _gauge(
        "opsd_backup_size_bytes",
        "Stored size of the newest backup; of a share: what its last run added",
        figures.size_bytes.items(),
        labels=("target", "repository"),
    )
    yield _gauge(
        "opsd_restore_verified_timestamp_seconds",
        "When a backup was last restored into a scratch place and compared",
        [((target,), at.timestamp()) for target, at in figures.restored_at.items()],
        labels=("target",),
    )


def _of_findings(open_findings: Iterable[OpenFinding]) -> Iterator[Metric]:
    entries = [entry.finding for entry in open_findings]
    severities = Counter(finding.severity for finding in entries)
    yield _gauge(
        "opsd_alerts_active",
        "Open findings",
        [((severity.label,), severities[severity]) for severity in Severity],
        labels=("severity",),
    )
    yield _gauge(
        "opsd_finding",
        "1 for every open finding that somebody should know",
        [
            ((finding.check, finding.subject, finding.severity.label), 1)
            for finding in entries
            if finding.severity > Severity.INFO
        ],
        labels=("check", "subject", "severity"),
    )


def _of_cluster(open_findings: Iterable[OpenFinding]) -> Iterator[Metric]:
    """What has a name of its own. Nothing is claimed of what could not be read."""
    findings = [entry.finding for entry in open_findings]
    machines = [
        (one.subject.partition("/")[2], one.facts) for one in findings if one.check == PATCHES
    ]
    yield _gauge(
        "opsd_node_updates_pending",
        "Packages of a machine that wait to be updated",
        [
            ((node, severity), count)
            for node, facts in machines
            for severity, count in _updates(facts)
        ],
        labels=("node", "severity"),
    )
    yield _gauge(
        "opsd_node_reboot_required",
        "Whether a machine needs a reboot",
        [
            ((node,), int(bool(facts["reboot"])))
            for node, facts in machines
            if facts.get("reboot") is not None
        ],
        labels=("node",),
    )
    yield _gauge(
        "opsd_pods_stuck_terminating",
        "Pods that hang in Terminating, by namespace",
        list(
            Counter((one.subject.split("/")[1],) for one in findings if one.check == STUCK).items()
        ),
        labels=("namespace",),
    )
    yield _gauge(
        "opsd_upgrade_blockers",
        "1 for every check that is in the way of the next Kubernetes",
        [((one.subject.rpartition("/")[2],), 1) for one in findings if one.check == BLOCKED],
        labels=("check",),
    )


def _updates(facts: Mapping[str, Fact]) -> Iterator[tuple[str, int]]:
    pending, security = facts.get("pending"), facts.get("security")
    if isinstance(pending, int) and isinstance(security, int):
        yield "security", security
        yield "other", max(0, pending - security)


def _gauge(
    name: str,
    what: str,
    values: Iterable[tuple[tuple[str, ...], float]],
    *,
    labels: tuple[str, ...] = (),
) -> Metric:
    family = GaugeMetricFamily(name, what, labels=labels)
    for key, value in sorted(values):
        family.add_metric(key, value)
    return family
