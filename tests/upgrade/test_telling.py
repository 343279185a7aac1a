"""What is in the way is told once, by its own name; the rest stands in the report."""

from __future__ import annotations

from opsd.model import Finding, Severity, Unseen
from opsd.upgrade import telling
from opsd.upgrade.assessment import Assessment
from opsd.upgrade.check import failed, passed, unknown, warned
from opsd.upgrade.memory import Difference
from tests.upgrade.made import FIRST, NOW, SECOND, assessment, check, result

SINCE = Difference(since=NOW, new=("swap",), gone=("disk",))


def findings(found: Assessment) -> list[Finding]:
    return [one for one in telling.observations(found, None) if isinstance(one, Finding)]


def test_the_verdict_has_the_counts_and_what_is_new() -> None:
    found = assessment(
        result("swap", failed("rpi3", "on")),
        result("disk", passed("rpi3", "fine")),
        result("dns", warned("coredns", "old")),
    )

    verdict, *_ = telling.observations(found, SINCE)

    assert isinstance(verdict, Finding)
    assert (verdict.check, verdict.severity) == ("upgrade.verdict", Severity.INFO)
    assert verdict.summary == "Kubernetes 1.35 → 1.36 is blocked by 1"
    counts = {"in_the_way": 1, "unknown": 0, "warnings": 1, "passed": 1}
    assert counts.items() <= verdict.facts.items()
    assert (verdict.facts["new_in_the_way"], verdict.facts["out_of_the_way"]) == ("swap", "disk")


def test_only_what_is_in_the_way_is_a_warning() -> None:
    _, *told = findings(
        assessment(
            result("swap", failed("rpi3", "on")),
            result("dns", warned("coredns", "old")),
            result("clock", unknown("rpi4", "no answer")),
            result("disk", passed("rpi3", "fine")),
        )
    )

    assert {(one.check, one.subject, one.severity) for one in told} == {
        ("upgrade.blocked", "cluster/upgrade/swap", Severity.WARNING),
        ("upgrade.warned", "cluster/upgrade", Severity.INFO),
        ("upgrade.unknown", "cluster/upgrade", Severity.INFO),
    }


def test_what_many_checks_could_not_read_is_one_finding_with_each_reason_once() -> None:
    why = unknown("machines", "there is no [ssh]", fix="configure it")
    _, told = findings(
        assessment(
            result("dns", unknown("coredns", "403")), result("swap", why), result("clock", why)
        )
    )

    assert told.summary == "not known before an upgrade: dns, swap, clock"
    assert told.remedy == "configure it"
    assert told.facts == {
        "reason_1": "machines: there is no [ssh] (swap, clock)",
        "reason_2": "coredns: 403 (dns)",
    }


def test_what_should_be_known_is_one_finding_with_the_words_of_each_check() -> None:
    _, told = findings(
        assessment(
            result("dns-names", warned("coredns", "old")), result("swap", warned("rpi3", "on"))
        )
    )

    assert told.summary == "to know before an upgrade: dns-names, swap"
    assert told.facts == {"dns_names": "coredns: old", "swap": "rpi3: on"}


def test_what_is_in_the_way_of_one_hop_is_not_also_a_warning_of_another() -> None:
    told = findings(
        assessment(
            result("etcd", warned("a", "old"), hop=FIRST),
            result("etcd", failed("a", "too old"), hop=SECOND),
            hops=(FIRST, SECOND),
        )
    )

    assert [one.check for one in told] == ["upgrade.verdict", "upgrade.blocked"]


def test_a_finding_has_its_evidence_its_fix_and_its_source() -> None:
    notes = [failed(f"rpi{number}", "swap is on") for number in range(7)]

    _, told = findings(assessment(result("swap", *notes)))

    assert told.summary == "upgrade to 1.36 is blocked: rpi0: swap is on"
    assert told.remedy == "mend the swap"
    assert told.facts["evidence_5"] == "rpi4: swap is on"
    assert told.facts["more_evidence"] == 2
    assert told.facts["source"] == "a book"


def test_a_check_that_fails_at_two_hops_is_told_for_the_first() -> None:
    _, told = findings(
        assessment(
            result("gates", failed("a", "gone"), hop=FIRST),
            result("gates", failed("a", "gone"), hop=SECOND),
            hops=(FIRST, SECOND),
        )
    )

    assert told.facts["target"] == "1.36"


def test_a_warning_at_the_first_hop_does_not_hide_that_the_second_is_blocked() -> None:
    _, told = findings(
        assessment(
            result("etcd", warned("a", "old"), hop=FIRST),
            result("etcd", failed("a", "too old"), hop=SECOND),
            hops=(FIRST, SECOND),
        )
    )

    assert (told.check, told.facts["target"]) == ("upgrade.blocked", "1.37")


def test_what_was_in_the_way_and_cannot_be_read_now_stays_in_the_way() -> None:
    found = assessment(result("swap", unknown("rpi3", "no answer")))

    assert Unseen(subject="cluster/upgrade/swap") in list(telling.observations(found, None))


def test_what_blocks_because_it_is_unknown_says_so() -> None:
    gamble = check("certificates", unknown("rpi1", "no answer"), unknown_blocks=True)
    one = result("certificates", unknown("rpi1", "no answer"))
    one = type(one)(check=gamble, target=one.target, status=one.status, notes=one.notes)

    _, told = findings(assessment(one))

    assert (told.check, told.severity) == ("upgrade.blocked", Severity.WARNING)
    assert Unseen(subject=told.subject) not in list(telling.observations(assessment(one), None))


def test_a_long_summary_is_shortened_and_the_evidence_is_whole() -> None:
    _, told = findings(assessment(result("swap", failed("rpi3", "x" * 200))))

    assert len(told.summary) == 120
    assert str(told.facts["evidence_1"]).endswith("x" * 200)
