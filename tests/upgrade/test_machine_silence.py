"""What a machine did not say, or was kept from saying, is never a pass."""

from __future__ import annotations

import pytest

from opsd.hosts.machine import Machine, Role
from opsd.hosts.script import Section
from opsd.upgrade.check import Check, Hop, Status, judged
from opsd.upgrade.checks import CHECKS
from opsd.upgrade.facts import KILLED, Facts, MachineFacts
from opsd.upgrade.reading import Reading
from opsd.upgrade.version import Minor, Version
from tests.upgrade.test_machine_checks import NOW

HOP = Hop(start=Minor(1, 35), target=Minor(1, 36))
ASKING = [check for check in CHECKS if check.probes]
NAMES = sorted({probe.name for check in ASKING for probe in check.probes})


def answering(*, stdout: str = "", stderr: str = "", status: int = 0) -> Facts:
    """A control-plane node that says the same to everything."""
    sections = {
        name: Section(name=name, stdout=stdout, stderr=stderr, status=status) for name in NAMES
    }
    roles = frozenset((Role.NODE, Role.CONTROL_PLANE))
    machine = MachineFacts(
        machine=Machine(name="a", address="", roles=roles), sections=sections, clock_offset_s=None
    )
    return Facts(
        at=NOW,
        server=Version(1, 35, 4),
        nodes=Reading.of(()),
        config_maps=Reading.of({}),
        machines=Reading.of((machine,)),
    )


@pytest.mark.parametrize("check", ASKING, ids=lambda check: str(check.id))
@pytest.mark.parametrize(
    "facts",
    [
        answering(),
        answering(stdout="\x00\xff%$ junk\n{{{\n"),
        answering(stderr="sudo: a password is required\n", status=1),
        answering(stderr="sh: 1: grep: not found\n", status=127),
        answering(stdout="Input/output error\n", stderr="Input/output error\n", status=5),
        answering(status=KILLED),
        answering(stdout="/etc/passwd:root\n", status=KILLED),
    ],
    ids=["empty", "junk", "refused", "not found", "broken disk", "killed", "killed midway"],
)
def test_no_check_passes_over_it(check: Check, facts: Facts) -> None:
    found = judged(check, facts, HOP)

    assert found.status in (Status.UNKNOWN, Status.WARN, Status.FAIL), found.notes


@pytest.mark.parametrize("check", ASKING, ids=lambda check: str(check.id))
def test_a_refusal_names_the_page_with_the_rights(check: Check) -> None:
    facts = answering(stderr="sudo: a password is required\n", status=1)

    found = judged(check, facts, HOP)

    fixes = {note.fix for note in found.worst if "sudo refused" in note.value}
    assert all("docs/nodes.md" in fix for fix in fixes)
