"""Which feature gates the next release refuses. tests/cluster asks the programs themselves."""

from __future__ import annotations

from opsd.upgrade import gates
from opsd.upgrade.version import Minor

TABLE = gates.table()
M35, M36, M37 = Minor(1, 35), Minor(1, 36), Minor(1, 37)


def test_a_removed_gate_is_refused_from_its_release_on_whatever_its_value() -> None:
    refusals = [
        TABLE.refusal("SidecarContainers", value=value, target=target)
        for value in (True, False)
        for target in (M36, M37, M37.next)
    ]

    assert refusals == ["", "removed in 1.37", "removed in 1.37"] * 2


def test_a_locked_gate_is_refused_only_with_the_other_value() -> None:
    refusals = [
        TABLE.refusal("KubeletPSI", value=value, target=target)
        for value in (True, False)
        for target in (M35, M36)
    ]

    assert refusals == ["", "", "", "locked to true since 1.36"]


def test_a_gate_that_nobody_wrote_down_is_not_refused() -> None:
    assert TABLE.refusal("NoSuchGate", value=True, target=M37) == ""


def test_kubeadm_has_gates_of_its_own() -> None:
    refusals = [TABLE.kubeadm_refusal("NodeLocalCRISocket", target=one) for one in (M36, M37)]

    assert refusals == ["", "removed from kubeadm in 1.37"]
    assert TABLE.refusal("NodeLocalCRISocket", value=True, target=M37) == ""
