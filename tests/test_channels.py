from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from opsd.alerts.channels import CHANNEL_DOWN, NOBODY_REACHED, Asked, Verdict, judge
from opsd.model import Finding, OpenFinding, Severity
from opsd.triage import OWN

W, C = Severity.WARNING, Severity.CRITICAL


def took(target: str) -> Asked:
    return Asked(target=target, accepted=1, error="")


def refused(target: str, *, alone: bool = False) -> Asked:
    return Asked(target=target, accepted=0, error="gone", waiting=2, alone=alone)


def found(*subjects: str) -> list[OpenFinding]:
    return [
        OpenFinding(
            finding=Finding(
                check=NOBODY_REACHED if subject == "channels" else CHANNEL_DOWN,
                subject=subject,
                severity=W,
                summary="",
            ),
            job=OWN,
            opened_at=datetime(2026, 11, 22, tzinfo=UTC),
        )
        for subject in subjects
    ]


def severities(verdict: Verdict) -> dict[str, Severity]:
    return {finding.subject: finding.severity for finding in verdict.findings}


def test_a_channel_that_took_a_message_is_well() -> None:
    verdict = judge([took("phone")], targets={"phone": W}, open_before=found("channel/phone"))

    assert verdict.findings == ()
    assert verdict.seen == ("channel/phone", "channels")


def test_a_channel_that_took_none_is_down_and_a_short_outage_is_not_told() -> None:
    verdict = judge(
        [refused("phone"), took("chat")], targets={"phone": W, "chat": W}, open_before=()
    )

    [finding] = verdict.findings
    assert (finding.check, finding.subject) == (CHANNEL_DOWN, "channel/phone")
    assert finding.facts == {"error": "gone", "waiting": 2}
    assert finding.remedy == "opsd notify-test --target phone"
    assert finding.steady_for == timedelta(minutes=5)
    assert verdict.seen == ("channel/chat", "channels")


@pytest.mark.parametrize(
    ("targets", "alone", "severity"),
    [
        pytest.param({"phone": W, "chat": W}, False, W, id="another hears of warnings"),
        pytest.param({"phone": W, "night": C}, False, C, id="the other hears of nothing less"),
        pytest.param({"phone": W, "chat": W}, True, C, id="it alone should have had the worst"),
        pytest.param({"phone": W}, False, C, id="it is the only one"),
    ],
)
def test_it_is_as_severe_as_it_must_be_to_be_heard(
    targets: Mapping[str, Severity],
    alone: bool,  # noqa: FBT001 - a row of the table
    severity: Severity,
) -> None:
    verdict = judge([refused("phone", alone=alone)], targets=targets, open_before=())

    assert severities(verdict)["channel/phone"] is severity


def test_when_all_are_down_nobody_is_reached_and_the_channels_follow_from_that() -> None:
    verdict = judge(
        [refused("phone"), refused("chat")], targets={"phone": W, "chat": W}, open_before=()
    )

    assert severities(verdict) == {"channel/chat": C, "channel/phone": C, "channels": C}
    assert [finding.cause for finding in verdict.findings] == ["channels", "channels", ""]
    assert verdict.seen == ()


def test_one_that_was_down_and_was_not_asked_counts_as_down() -> None:
    verdict = judge(
        [refused("phone")],
        targets={"phone": W, "chat": W},
        open_before=found("channel/chat"),
    )

    assert severities(verdict) == {"channel/phone": C, "channels": C}
    assert "channel/chat" not in verdict.seen


def test_one_that_was_not_asked_is_not_known_to_be_down() -> None:
    verdict = judge([refused("phone")], targets={"phone": W, "chat": W}, open_before=())

    assert severities(verdict) == {"channel/phone": W}


def test_a_channel_that_is_not_configured_any_more_is_over() -> None:
    verdict = judge([took("chat")], targets={"chat": W}, open_before=found("channel/phone"))

    assert "channel/phone" in verdict.seen


def test_without_targets_nothing_is_said() -> None:
    assert judge([], targets={}, open_before=()).findings == ()
