"""What opsd may do about lost nodes, how it proves that they are off, and where it stops."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from opsd.config import Duration, SecretRef, Table, unique_names


def _plain(options: dict[str, str]) -> dict[str, str]:
    for key, value in options.items():
        if not key or "=" in key or "\n" in key + value or key in ("action", "option"):
            raise ValueError(f"{key!r}: names have no = and no newline, and action is opsd's")
    return options


def _networks(addresses: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    for one in (one for several in addresses.values() for one in several):
        try:
            ipaddress.IPv4Network(one)
        except ValueError:
            raise ValueError(f"{one!r}: expected an IPv4 address or network") from None
    return addresses


_OF_PROGRAM = ("command", "options", "secrets", "action_by", "cuts", "turn_on")
_OF_NFS = ("server", "serves", "addresses")


class FenceTable(Table):
    """A program, or a file server, by which nodes are cut off, and that says whether they are."""

    name: str = Field(
        min_length=1,
        max_length=60,
        description="for you and the record on a node",
        examples=["plugs"],
    )
    nodes: tuple[str, ...] = Field(
        min_length=1, description="names of nodes, with * and ?", examples=[["rpi*"]]
    )
    type: Literal["program", "nfs"] = Field(
        "program",
        description="program: a fence agent; nfs: an NFS server that lets a node in no more",
    )
    server: str = Field(
        "",
        description="of nfs: the name of the machine that serves the files, where opsd-fence is",
        examples=["nas"],
    )
    serves: tuple[str, ...] = Field(
        (),
        description="of nfs: all names by which volumes have this server; others are not cut",
        examples=[["10.0.0.5", "nas.lan"]],
    )
    addresses: Annotated[dict[str, tuple[str, ...]], AfterValidator(_networks)] = Field(
        default_factory=dict,
        description="of nfs: by node, what it may come from besides what the cluster knows",
        examples=[{"rpi3": ["10.0.1.13"]}],
    )
    command: tuple[str, ...] | None = Field(
        None,
        description="of program: a fence agent, or a program that is called as one",
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
    timeout: Duration = Field(
        timedelta(seconds=60), description="of one call of the program, or one login"
    )

    @model_validator(mode="after")
    def _is_of_its_type(self) -> Self:
        is_nfs = self.type == "nfs"
        needed, foreign = (_OF_NFS[:2], _OF_PROGRAM) if is_nfs else (_OF_PROGRAM[:1], _OF_NFS)
        if missing := [name for name in needed if not getattr(self, name)]:
            raise ValueError(f'a fence of type "{self.type}" needs {", ".join(missing)}')
        if wrong := [name for name in foreign if getattr(self, name) != _default(name)]:
            raise ValueError(f'a fence of type "{self.type}" has no {", ".join(wrong)}')
        return self


def _default(name: str) -> object:
    return FenceTable.model_fields[name].get_default(call_default_factory=True, validated_data={})


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
    ports: tuple[int, ...] = Field(
        (22, 10250),
        description="where opsd and other machines knock at a lost node to see whether it lives",
    )
