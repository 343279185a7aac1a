from __future__ import annotations

import dataclasses

import pytest

from opsd import errors
from opsd.model import Finding, Severity


def finding(**changes: object) -> Finding:
    values: dict[str, object] = {
        "check": "x.y",
        "subject": "s/a",
        "severity": Severity.WARNING,
        "summary": "s",
    }
    return Finding(**{**values, **changes})  # type: ignore[arg-type]


def test_the_same_check_and_subject_is_the_same_problem_whatever_else_changed() -> None:
    worse = finding(severity=Severity.CRITICAL, summary="other words", facts={"a": 1})

    assert finding().key == worse.key
    assert finding().key != finding(subject="s/b").key
    assert finding().key != finding(check="x.z").key


def test_severities_are_in_order_and_have_the_names_of_the_configuration() -> None:
    assert Severity.INFO < Severity.WARNING < Severity.CRITICAL
    assert [one.label for one in Severity] == ["info", "warning", "critical"]


def test_a_finding_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        finding().summary = "other"  # type: ignore[misc]


def test_every_error_of_opsd_can_be_caught_as_one() -> None:
    own = [one for one in vars(errors).values() if isinstance(one, type)]

    assert len(own) > 5
    assert all(issubclass(one, errors.OpsdError) for one in own)
