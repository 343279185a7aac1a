"""The page of faults names tests that exist, and every test of a fault stands on it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs/faults.md"
LINE = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
TOOLS = {"test_failpoints.py", "test_proxy.py", "test_s3front.py"}  # prove the tools of the others
FEWEST_FAULTS = 60


def named() -> set[tuple[str, str]]:
    """(file, test) as the page has them."""
    return set(LINE.findall(PAGE.read_text()))


def proven_in(path: Path) -> set[str]:
    """The tests of a file, which is read and not run."""
    if not path.is_file():
        return set()
    found = ast.walk(ast.parse(path.read_text()))
    return {
        node.name
        for node in found
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_test_on_the_page_exists() -> None:
    missing = {f"{file}::{name}" for file, name in named() if name not in proven_in(TESTS / file)}

    assert missing == set()


@pytest.mark.parametrize(
    "path",
    [one for one in (TESTS / "faults").glob("test_*.py") if one.name not in TOOLS],
    ids=lambda path: path.name,
)
def test_every_file_of_faults_is_on_the_page(path: Path) -> None:
    assert f"faults/{path.name}" in {file for file, _ in named()}


def test_every_fault_has_a_test_and_every_cell_is_filled() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    faults = [row for row in rows if not row.startswith("| fault |")]

    assert len(faults) >= FEWEST_FAULTS
    assert [row for row in faults if not LINE.search(row)] == []
    assert [row for row in faults if "| |" in row or row.count(" | ") != 3] == []
