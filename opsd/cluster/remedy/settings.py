"""What opsd may do about lost nodes, how it proves that they are off, and where it stops."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from opsd.config import Duration, SecretRef, Table, unique_names


def _plain(options: dict[str, str]) -> dict[str, str]:
    for key, value in options.items():
        if not key or "=" in key or "\n" in key + value or key in ("action", "option"):
            raise ValueError(f"{key!r}: names have no = and no newline, and action is opsd's")
    return options


class FenceTable(Table):
    """A program by which nodes are cut off, and that says whether they are."""

    name: str = Field(
        min_length=1,
        max_length=60,
        description="for you and the record on a node",
        examples=["plugs"],
    )
    nodes: tuple[str, ...] = Field(
        min_length=1, description="names of nodes, with * and ?", examples=[["rpi*"]]
    )
    command: tuple[str, ...] = Field(
        min_length=1,
        description="a fence agent, or a program that is called as one",
        examples=[["fence_ipmilan"]],
    )
    options: Annotated[dict[str, str], AfterValidator(_plain)] = Field(
        default_factory=dict,
        description="given on stdin as NAME=VALUE; {node} stands for the node's name",
        examples=[{"ip": "bmc-{node}.lan", "username": "admin"}],
    )
    secrets: dict[str, SecretRef] = Field(
        default_factory=dict,
        description="likewise, for passwords",
        examples=[{"password": "env:OPSD_BMC_PASSWORD"}],
    )
    action_by: Literal["stdin", "argument"] = Field(
        "stdin",
        description="stdin: action=off is among the options, as fence agents want it; "
        "argument: -o off",
    )
    cuts: Literal["power", "network"] = Field(
        "power",
        description="what it takes from a node; a network is given back only after a reboot",
    )
    turn_on: bool = Field(
        default=False,
        description="give the power back once the pods run elsewhere; else a person does",
    )
    timeout: Duration = Field(timedelta(seconds=60), description="of one call of the program")


class RemedySettings(Table):
    """Nothing is done to a node unless everything here allows it."""

    allow: tuple[str, ...] = Field(
        (),
        description="namespaces, or NAMESPACE/STATEFULSET, whose pods may be moved",
        examples=[["db", "monitoring/prometheus"]],
    )
    fences: Annotated[tuple[FenceTable, ...], AfterValidator(unique_names)] = Field(
        (), description="the first that fits a node is used"
    )
    patience: Duration = Field(
        timedelta(minutes=5), description="so long a node must be silent; a reboot is no loss"
    )
    max_lost: int = Field(1, ge=1, description="with more lost workers nothing is done")
    max_lost_percent: int = Field(
        34, ge=1, le=100, description="likewise, in percent of all workers"
    )
    cool_down: Duration = Field(
        timedelta(minutes=10), description="a worker that came back counts as lost for so long"
    )
    again_after: Duration = Field(
        timedelta(hours=6), description="nothing is done twice to a node within this time"
    )
    healthy_for: Duration = Field(
        timedelta(minutes=2), description="so long a node must be back before it is used again"
    )
    protected: tuple[str, ...] = Field(
        (), description="names of nodes that nothing is ever done to, with * and ?"
    )
