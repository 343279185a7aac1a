"""What the program can do stands in its documentation, and nothing else does."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import reference

ROOT = Path(__file__).parent.parent
FINDINGS = ROOT / "docs/findings.md"
_DOTTED = re.compile(r"[a-z_]+\.[a-z_]+")
CHECKS = (
    "backup",
    "cluster",
    "dry_run",
    "etcd",
    "health",
    "job",
    "machine",
    "nfs",
    "node",
    "patches",
    "patches",
    "pod",
    "postgres",
    "remedy",
    "repository",
    "upgrade",
    "volumes",
)
NOT_CHECKS = {"repository.conditions_unknown"}  # a log event


def constants() -> Iterator[ast.Constant]:
    for folder in ("opsd", "jobs"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node


def checks() -> set[str]:
    """Every check name in the code: dotted literals of the known families."""
    found = {str(node.value) for node in constants() if _DOTTED.fullmatch(str(node.value))}
    return {name for name in found if name.split(".")[0] in CHECKS} - NOT_CHECKS


def events() -> set[str]:
    """The first argument of every call of a logger."""
    found = set()
    for folder in ("opsd", "jobs"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(
                        func=ast.Attribute(value=ast.Name(id="log")),
                        args=[ast.Constant(value=str() as event), *_],
                    ):
                        found.add(event)
    return found


def documented(path: Path) -> set[str]:
    return set(re.findall(r"`([a-z_]+\.[a-z_]+)`", path.read_text()))


def test_the_code_has_checks_and_events_to_document() -> None:
    assert "postgres.dump_failed" in checks()
    assert "run.ended" in events()


def test_every_check_is_documented() -> None:
    assert checks() - documented(FINDINGS) == set()


def test_every_log_event_is_documented() -> None:
    assert events() - documented(FINDINGS) == set()


def test_no_check_is_documented_that_does_not_exist() -> None:
    told = {name for name in documented(FINDINGS) if name.split(".")[0] in CHECKS} - NOT_CHECKS

    assert told - checks() - {"dry_run.keep", "dry_run.remove"} == set()


def test_the_example_configuration_is_up_to_date() -> None:
    assert reference.EXAMPLE.read_text() == reference.example(), "run: python -m tools.reference"


def test_the_schema_is_up_to_date() -> None:
    assert reference.SCHEMA.read_text() == reference.schema(), "run: python -m tools.reference"
    assert json.loads(reference.SCHEMA.read_text())["$schema"].startswith("https://json-schema")


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (reference.CONFIGURATION, reference.configuration()),
        (reference.COMMANDS, reference.commands()),
    ],
    ids=["configuration", "commands"],
)
def test_every_key_command_and_option_is_documented(page: Path, text: str) -> None:
    written = page.read_text()

    assert reference.replaced(written, text) == written, "run: python -m tools.reference"
    assert len(text) > 1000


def test_every_link_between_the_pages_leads_somewhere() -> None:
    broken = [
        (page.name, target)
        for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]

    assert broken == []


def test_every_key_of_a_json_answer_about_runs_is_documented() -> None:
    page = reference.COMMANDS.read_text()
    source = "".join(
        (ROOT / "opsd/cli" / name).read_text()
        for name in (
            "acknowledging.py",
            "jobs.py",
            "overview.py",
            "pausing.py",
            "results.py",
            "silencing.py",
            "status.py",
            "backups.py",
            "verify.py",
            "restore.py",
            "check.py",
            "nodecheck.py",
            "nodelist.py",
            "nodetrust.py",
        )
    )

    keys = set(re.findall(r'^ {8,}"([a-z_0-9]+)": ', source, re.MULTILINE))

    assert len(keys) > 20
    assert {key for key in keys if f'"{key}"' not in page} == set()
