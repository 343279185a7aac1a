"""Services outside are told what happens; with real HTTP servers that misbehave."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from opsd.alerts import pings
from opsd.alerts.pings import BackgroundPings, JobPings, text_of
from opsd.clients.pings import BODY_BYTES, Endpoint, PingKind, Sign, call_for
from opsd.errors import ConfigError, PermanentError
from opsd.model import Finding, Outcome, Run, Severity
from opsd.secrets import Secret
from tests.rig.sink import Answer, Sink

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HC = "https://hc.example.org/ping/5f1c0a52-8a0e-4c52-9f6a-0d9f3d6a1b7e"
KUMA = "https://kuma.example.org/api/push/AbCdEf1234?status=up&msg=OK&ping="


def run(outcome: Outcome = Outcome.COMPLETED, **changes: object) -> Run:
    values: dict[str, object] = {
        "job": "nfs-backup",
        "run_id": "0123456789ab",
        "slot": NOON,
        "started_at": NOON,
        "duration": timedelta(seconds=90.5),
        "outcome": outcome,
    }
    return Run(**{**values, **changes})  # type: ignore[arg-type]


def asked(
    url: str, kind: PingKind, sign: Sign, **told: object
) -> tuple[str, dict[str, list[str]]]:
    request = call_for(url, kind, sign, **told)  # type: ignore[arg-type]
    assert request is not None
    parts = urlsplit(request.url)
    return parts.path, parse_qs(parts.query, keep_blank_values=True)


def test_healthchecks_is_told_start_success_and_failure_of_one_run() -> None:
    signs = [Sign.STARTED, Sign.WELL, Sign.FAILED]

    told = [asked(HC, "healthchecks", sign, run_id="0123456789ab") for sign in signs]

    base = urlsplit(HC).path
    assert [path for path, _ in told] == [f"{base}/start", base, f"{base}/fail"]
    assert len({query["rid"][0] for _, query in told}) == 1
    assert uuid.UUID(told[0][1]["rid"][0]).version == 5


def test_two_runs_have_two_ids_and_the_heartbeat_has_none() -> None:
    first, second = (
        asked(HC, "healthchecks", Sign.WELL, run_id=run_id)[1]["rid"] for run_id in ("a1", "a2")
    )

    assert first != second
    assert asked(HC, "healthchecks", Sign.WELL)[1] == {}


def test_a_query_and_a_slash_of_the_owner_are_kept() -> None:
    path, query = asked("https://hc/key/slug/?create=1", "healthchecks", Sign.FAILED)

    assert (path, query) == ("/key/slug/fail", {"create": ["1"]})


@pytest.mark.parametrize(
    ("text", "size"), [("x" * 10_000, 10_000), ("x" * 10_001, 10_000), ("ü" * 9_000, 10_000)]
)
def test_a_text_is_cut_to_what_the_service_keeps(text: str, size: int) -> None:
    request = call_for(HC, "healthchecks", Sign.FAILED, text=text)

    assert request is not None
    assert request.body is not None
    assert len(request.body) == size == BODY_BYTES
    assert request.body.decode()


def test_uptime_kuma_is_told_up_and_down_in_place_of_its_example() -> None:
    up = asked(KUMA, "uptime-kuma", Sign.WELL, text="all fine", duration=timedelta(seconds=1.5))
    down = asked(KUMA, "uptime-kuma", Sign.FAILED, text="it\nbroke & how\udcff")

    assert up == (
        "/api/push/AbCdEf1234",
        {"status": ["up"], "msg": ["all fine"], "ping": ["1500"]},
    )
    assert down[1] == {"status": ["down"], "msg": ["it broke & how\\udcff"], "ping": [""]}
    assert call_for(KUMA, "uptime-kuma", Sign.STARTED) is None


def test_a_plain_url_is_called_as_it_is_when_all_is_well_and_not_else() -> None:
    requests = {sign: call_for("https://x/y?z", "plain", sign) for sign in Sign}

    assert [sign for sign, request in requests.items() if request] == [Sign.WELL]
    assert asked("https://x/y?z", "plain", Sign.WELL) == ("/y", {"z": [""]})


def test_what_is_no_url_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="no URL"):
        call_for("http://[x", "healthchecks", Sign.WELL)


def test_a_text_says_how_it_ended_why_and_what_was_found_worst_first() -> None:
    findings = tuple(
        Finding(check="c", subject=f"share/{name}", severity=severity, summary=f"{name}\nis odd")
        for name, severity in {"a": Severity.WARNING, "b": Severity.CRITICAL}.items()
    )

    text = text_of(run(Outcome.TIMED_OUT, findings=findings, error="it hung"))

    assert text.splitlines() == [
        "nfs-backup timed out after 90 s: it hung",
        "critical: b is odd (share/b)",
        "warning: a is odd (share/a)",
    ]


@pytest.fixture
def endpoint(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("OPSD_TEST_PING", f"{sink.url}/c4naryToken42")
    yield Endpoint(
        name="ping of nfs-backup", url=Secret("env:OPSD_TEST_PING"), kind="healthchecks"
    )
    for thread in threading.enumerate():
        if thread.name in ("ping", "pings", "http"):
            thread.join(10)


def signs(sink: Sink) -> list[str]:
    return [
        urlsplit(request.path).path.removeprefix("/c4naryToken42") for request in sink.requests
    ]


@pytest.mark.real
@pytest.mark.parametrize(
    ("outcome", "ends"),
    [
        (Outcome.COMPLETED, [""]),
        (Outcome.FAILED, ["/fail"]),
        (Outcome.TIMED_OUT, ["/fail"]),
        (Outcome.INTERRUPTED, ["/fail"]),
        (Outcome.MISSED, ["/fail"]),
        (Outcome.SKIPPED, []),
    ],
)
def test_start_and_end_of_a_run_are_told_in_this_order(
    outcome: Outcome, ends: Sequence[str], sink: Sink, endpoint: Endpoint
) -> None:
    told = JobPings({"nfs-backup": endpoint})

    told.started("nfs-backup", "0123456789ab")
    told.ended(run(outcome))
    sink.wait_for(1 + len(ends))

    assert signs(sink) == ["/start", *ends]
    assert len({request.path.partition("rid=")[2] for request in sink.requests}) == 1


@pytest.mark.real
def test_a_run_that_is_tried_again_has_not_ended(sink: Sink, endpoint: Endpoint) -> None:
    JobPings({"nfs-backup": endpoint}).ended(
        run(Outcome.FAILED, retry_at=NOON + timedelta(minutes=1))
    )

    assert signs(sink) == []


@pytest.mark.real
def test_other_jobs_give_no_signs(sink: Sink, endpoint: Endpoint) -> None:
    told = JobPings({"other": endpoint})

    told.started("nfs-backup", "0123456789ab")
    told.ended(run())

    assert signs(sink) == []


@pytest.mark.real
def test_a_server_in_trouble_is_told_once_more(sink: Sink, endpoint: Endpoint) -> None:
    sink.answer_by(lambda _request: Answer(status=503 if len(sink.requests) == 1 else 200))

    JobPings({"nfs-backup": endpoint}).ended(run())

    assert signs(sink) == ["", ""]


@pytest.mark.real
@pytest.mark.parametrize(("status", "times"), [(503, 2), (404, 1)])
def test_a_ping_that_fails_is_logged_and_no_more(
    status: int,
    times: int,
    sink: Sink,
    endpoint: Endpoint,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sink.answer(status)

    JobPings({"nfs-backup": endpoint}).ended(run())

    said = capsys.readouterr().out
    assert len(sink.requests) == times
    assert "ping.failed" in said
    assert "env:OPSD_TEST_PING" in said
    assert "c4naryToken42" not in said


@pytest.mark.real
def test_a_service_that_hangs_delays_the_end_no_longer_than_allowed(
    sink: Sink, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = {"START_S": 0.4, "START_WAIT_S": 0.3, "END_S": 0.5, "FIRST_TRY_S": 0.3}
    for name, seconds in shares.items():
        monkeypatch.setattr(pings, name, seconds)
    sink.hang()
    told = JobPings({"nfs-backup": endpoint})
    told.started("nfs-backup", "0123456789ab")
    ending = threading.Thread(target=told.ended, args=(run(),))

    ending.start()
    ending.join(5)

    assert not ending.is_alive()
    assert signs(sink).count("") == 2


def test_the_allowance_of_a_run_is_fifteen_seconds() -> None:
    assert pings.START_WAIT_S + pings.END_S == 15


@pytest.mark.real
def test_a_healthchecks_server_that_does_not_know_the_url_is_an_error(
    sink: Sink, endpoint: Endpoint
) -> None:
    sink.answer(200, b"OK (not found)")

    with pytest.raises(PermanentError, match="does not know this URL"):
        endpoint.send(Sign.WELL, timeout_s=5)


@pytest.mark.real
def test_a_secret_that_is_missing_fails_no_run(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPSD_TEST_PING")
    told = JobPings({"nfs-backup": endpoint})

    told.started("nfs-backup", "0123456789ab")
    told.ended(run())

    assert "OPSD_TEST_PING" in capsys.readouterr().out


class Recorder:
    """Keeps what it is told, slowly when asked to."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.may_go_on = threading.Event()
        self.is_asked = threading.Event()

    def ended(self, run: Run) -> None:
        self.is_asked.set()
        self.may_go_on.wait(10)
        self.told.append(f"{run.job}/{run.run_id}")


def test_a_caller_in_a_hurry_does_not_wait_and_the_newest_of_a_job_counts() -> None:
    slow = Recorder()
    hurried = BackgroundPings(slow)

    hurried.ended(run(run_id="a0"))
    assert slow.is_asked.wait(10)
    for number in range(1, 100):
        hurried.ended(run(run_id=f"a{number}"))
    hurried.ended(run(job="postgres-backup", run_id="b"))
    slow.may_go_on.set()
    for thread in threading.enumerate():
        if thread.name == "pings":
            thread.join(10)

    assert slow.told == ["nfs-backup/a0", "nfs-backup/a99", "postgres-backup/b"]


def test_it_tells_again_after_it_was_idle() -> None:
    prompt = Recorder()
    prompt.may_go_on.set()
    hurried = BackgroundPings(prompt)

    for number in range(3):
        hurried.ended(run(run_id=f"a{number}"))
        for thread in threading.enumerate():
            if thread.name == "pings":
                thread.join(10)

    assert prompt.told == ["nfs-backup/a0", "nfs-backup/a1", "nfs-backup/a2"]
