"""No command is run as root that `opsd nodes check` and docs/nodes.md do not know."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from opsd.hosts import rights
from opsd.hosts.machine import Machine, Role
from opsd.hosts.rights import RIGHTS, Right
from opsd.hosts.script import Section

ROOT = Path(__file__).parent.parent
ELSEWHERE = ("/usr/local/sbin/opsd-fence",)  # set up by docs/remedy.md, with a line of its own
_ASKED = re.compile(r"\$root ([^\n;|&)]+)")
_REDIRECTED = re.compile(r"\s*[0-9]*>.*")


def modules() -> Iterator[tuple[ModuleType, ast.Module]]:
    for folder in ("opsd", "jobs"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text()
            if "$root " in text and path.name not in ("script.py", "rights.py"):
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                yield importlib.import_module(name), ast.parse(text)


def texts(module: ModuleType, tree: ast.Module) -> Iterator[str]:
    """Every string, with the module's constants in their places."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(part_of(one, module) for one in node.values)


def part_of(node: ast.expr, module: ModuleType) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    assert isinstance(node, ast.FormattedValue)
    try:
        found = eval(ast.unparse(node.value), vars(module))  # noqa: S307 - our own constants
    except NameError:
        return "?"
    return str(found)


def asked() -> set[tuple[str, ...]]:
    """The words of each command that is run as root."""
    found = set()
    for module, tree in modules():
        for text in texts(module, tree):
            for command in _ASKED.findall(text):
                words = tuple(shlex.split(_REDIRECTED.sub("", command)))
                found.add(tuple("/dev/sda" if one == "/dev/$name" else one for one in words))
    # A string is seen once more as a part of the f-string that it belongs to.
    return {words for words in found if words and not words[-1].endswith(("?", "$root"))}


def test_there_is_something_to_look_at() -> None:
    assert ("dmesg",) in asked()


def test_every_command_that_is_run_as_root_is_a_right() -> None:
    known = {tuple(shlex.split(right.command)) for right in RIGHTS}
    unknown = {
        words
        for words in asked() - known
        if words[0] not in ELSEWHERE
        and not any(words == other[: len(words)] for other in known | asked() if other != words)
    }

    assert unknown == set()


def test_every_right_is_a_command_of_its_own_with_its_purpose() -> None:
    assert len({right.command for right in RIGHTS}) == len(RIGHTS)
    assert all(right.purpose for right in RIGHTS)


@pytest.mark.parametrize(
    ("roles", "is_needed"),
    [
        (frozenset(), True),
        (frozenset({Role.NODE}), True),
        (frozenset({Role.ROUTER, Role.NODE}), True),
        (frozenset({Role.NFS_SERVER}), False),
    ],
)
def test_a_right_is_needed_where_a_role_is(roles: frozenset[Role], is_needed: bool) -> None:  # noqa: FBT001
    machine = Machine(name="rpi1", address="10.0.0.1", roles=frozenset({Role.NODE}))

    assert Right(command="x", purpose="y", roles=roles).is_needed(machine) is is_needed


def test_a_program_that_is_absent_needs_no_right() -> None:
    asked_for = [Right(command=name, purpose="p") for name in ("a -b", "c", "d", "e f")]
    said = "allowed a -b\nrefused c\nabsent d\n"

    allowed, refused = rights.read(
        Section(name="rights", stdout=said, stderr="", status=0), asked_for
    )

    assert [one.command for one in allowed] == ["a -b"]
    assert [one.command for one in refused] == ["c"]
