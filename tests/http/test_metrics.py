from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from opsd.clock import SystemClock
from opsd.http.metrics import Metrics
from opsd.model import Artifact, Finding, Message, Outcome, Run, Severity
from opsd.state.sqlite import SqliteState

NOW = SystemClock().now().replace(microsecond=0)
DUMP = Artifact(
    kind="pg_dump",
    subject='database/main/"app"\n',
    repository="usb",
    key="k",
    size_bytes=12,
    sha256="00",
    level="restored",
)
FULL = Finding(
    check="health.space",
    subject="machine/rpi3/mount/srv",
    severity=Severity.WARNING,
    summary="full",
)


@pytest.fixture
def state(tmp_path: Path) -> SqliteState:
    return SqliteState(tmp_path / "state.db", clock=SystemClock())


def record(
    state: SqliteState,
    number: int,
    *,
    tells: bool = False,
    findings: tuple[Finding, ...] = (FULL,),
) -> None:
    run = Run(
        job="nfs-backup",
        run_id=f"{number:012x}",
        slot=NOW + timedelta(minutes=number),
        started_at=NOW,
        duration=timedelta(seconds=70),
        outcome=Outcome.COMPLETED,
        artifacts=(DUMP,),
        findings=findings,
        attempt=1,
    )
    message = Message(key="k", severity=Severity.WARNING, title="t", body="b")
    messages = (message,) if tells else ()
    state.record(run, tell=lambda alerts, _findings, _at: (alerts, messages))


def samples(metrics: Metrics) -> Iterator[tuple[str, dict[str, str], float]]:
    for family in text_string_to_metric_families(metrics.answer().body):
        for sample in family.samples:
            yield sample.name, dict(sample.labels), sample.value


def value(metrics: Metrics, name: str, **labels: str) -> float:
    (found,) = [one[2] for one in samples(metrics) if one[:2] == (name, labels)]
    return found


def test_what_prometheus_reads_is_what_is_on_record(state: SqliteState) -> None:
    metrics = Metrics(state, {"nfs-backup": 86400.0})
    metrics.answer()
    record(state, 1, tells=True)

    ended_at = (NOW + timedelta(seconds=70)).timestamp()
    target = DUMP.subject
    task = "nfs-backup"
    last = "opsd_run_last_success_timestamp_seconds"
    assert value(metrics, last, task=task, target="") == ended_at
    assert value(metrics, last, task=task, target=target) == ended_at
    assert value(metrics, "opsd_runs_total", task=task, outcome="completed") == 1
    assert value(metrics, "opsd_run_duration_seconds_bucket", task=task, le="60.0") == 0
    assert value(metrics, "opsd_run_duration_seconds_bucket", task=task, le="300.0") == 1
    assert value(metrics, "opsd_run_duration_seconds_bucket", task=task, le="+Inf") == 1
    assert value(metrics, "opsd_run_duration_seconds_sum", task=task) == 70
    assert value(metrics, "opsd_task_schedule_interval_seconds", task=task) == 86400
    assert value(metrics, "opsd_backup_size_bytes", target=target, repository="usb") == 12
    assert value(metrics, "opsd_restore_verified_timestamp_seconds", target=target) == ended_at
    assert value(metrics, "opsd_alerts_active", severity="warning") == 1
    assert value(metrics, "opsd_alerts_active", severity="critical") == 0
    about = {"check": FULL.check, "subject": FULL.subject, "severity": "warning"}
    assert value(metrics, "opsd_finding", **about) == 1
    assert value(metrics, "opsd_messages_waiting") == 1
    assert value(metrics, "opsd_runs_under_way", task=task) == 0
    assert value(metrics, "opsd_state_readable") == 1


def test_a_run_that_began_is_under_way(state: SqliteState) -> None:
    state.begin(job="nfs-backup", run_id="a1", slot=NOW, at=NOW)

    assert (
        value(Metrics(state, {"nfs-backup": 1.0}), "opsd_runs_under_way", task="nfs-backup") == 1
    )


def test_a_state_that_cannot_be_read_is_said_and_nothing_else_is_claimed(
    state: SqliteState, tmp_path: Path
) -> None:
    record(state, 1)
    metrics = Metrics(state, {"nfs-backup": 86400.0})
    state.close()
    (tmp_path / "state.db").write_bytes(b"no database" * 1000)

    found = {name for name, *_ in samples(metrics)}

    assert value(metrics, "opsd_state_readable") == 0
    assert not found & {"opsd_alerts_active", "opsd_messages_waiting", "opsd_backup_size_bytes"}


def test_no_label_is_named_as_those_that_the_scraper_sets(state: SqliteState) -> None:
    record(state, 1)
    metrics = Metrics(state, {"nfs-backup": 86400.0})
    metrics.answer()
    record(state, 2)

    assert not {label for _, labels, _ in samples(metrics) for label in labels} & {
        "job",
        "instance",
    }


def test_machines_pods_and_upgrades_have_figures_of_their_own(state: SqliteState) -> None:
    state_of = replace(FULL, check="patches.state", severity=Severity.INFO)
    found = (
        replace(
            state_of, subject="machine/rpi1", facts={"pending": 5, "security": 2, "reboot": 1}
        ),
        replace(
            state_of, subject="machine/rpi2", facts={"pending": 0, "security": 0, "reboot": 0}
        ),
        replace(state_of, subject="machine/rpi3", facts={"pending": None, "security": None}),
        replace(FULL, check="pod.stuck", subject="pod/db/pg-0"),
        replace(FULL, check="upgrade.blocked", subject="cluster/upgrade/etcd-snapshot"),
    )
    record(state, 1, findings=found)
    metrics = Metrics(state, {})

    pending = "opsd_node_updates_pending"
    assert value(metrics, pending, node="rpi1", severity="security") == 2
    assert value(metrics, pending, node="rpi1", severity="other") == 3
    assert value(metrics, "opsd_node_reboot_required", node="rpi1") == 1
    assert value(metrics, "opsd_node_reboot_required", node="rpi2") == 0
    assert "rpi3" not in metrics.answer().body
    assert value(metrics, "opsd_pods_stuck_terminating", namespace="db") == 1
    assert value(metrics, "opsd_upgrade_blockers", check="etcd-snapshot") == 1
