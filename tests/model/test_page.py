"""What docs/model.md says of the models is what they are."""

from __future__ import annotations

import ast
import importlib
import re
from dataclasses import fields
from pathlib import Path

import pytest

from tests.model.fencing import Act, Fencing
from tests.model.outbox import Outbox
from tests.model.retention import Retention
from tests.model.slots import Slots

TESTS = Path(__file__).parent
PAGE = TESTS.parents[1].joinpath("docs/model.md").read_text()
CODE = sorted(set(re.findall(r"`(opsd(?:\.[a-z_]\w*)+)((?:\.[A-Z]\w*)?(?:\.\w+)?)`", PAGE)))
FEWEST_NAMES = 15


def rules(model: type) -> set[str]:
    """Names of the rules of a model that can be left out."""
    return {rule.name for rule in fields(model) if rule.type == "bool"}


def named(text: str) -> object:
    """What a dotted name of the code stands for; a module is the longest that loads."""
    parts = text.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise AssertionError(text)


@pytest.mark.parametrize("name", sorted({"".join(found) for found in CODE}))
def test_every_name_of_the_code_on_the_page_exists(name: str) -> None:
    assert named(name) is not None


def test_the_page_names_the_code_that_it_is_about() -> None:
    assert len(CODE) >= FEWEST_NAMES


@pytest.mark.parametrize("model", [Slots, Outbox, Retention, Fencing])
def test_every_rule_that_can_be_left_out_is_on_the_page(model: type) -> None:
    assert {rule for rule in rules(model) if f"`{rule}`" not in PAGE} == set()


def test_every_way_to_act_is_on_the_page() -> None:
    assert {act for act in Act if f"`Act.{act.name}`" not in PAGE} == set()


def test_every_test_on_the_page_exists() -> None:
    proven = {
        node.name
        for path in TESTS.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    on_page = set(re.findall(r"`(test_\w+)`", PAGE))

    assert on_page
    assert on_page - proven == set()
