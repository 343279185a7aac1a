"""What must not be in the repository, and the shape that its code keeps."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-demo.lock", "requirements-dev.lock")
LONGEST_MODULE = 400  # lines
LONGEST_FUNCTION = 60  # lines

# Written in pieces, so that this file does not hold what it looks for.
REGISTRIES = [
    ("py", "pi.org"),
    ("python", "hosted.org"),
    ("registry.npm", "js.org"),
    ("crates", ".io"),
    ("proxy.go", "lang.org"),
    ("deb.", "debian.org"),
    ("repo1.", "maven.org"),
]
FORBIDDEN = {
    "the host of a package registry": "|".join(re.escape(a + b) for a, b in REGISTRIES),
    "an open end": r"\b(" + "TO" + "DO|FIX" + r"ME|X" + r"XX)\b",
    "a path of the machine it was written on": "/wo" + r"rk/(main|shared)|/tmp/bri" + "efs",
    "a private key": "^-----BEGIN [A-Z ]*PRIVATE " + "KEY-----$",
}


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def python_files(*folders: str) -> Iterator[tuple[Path, str]]:
    for path in tracked():
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders:
            yield path.relative_to(ROOT), path.read_text()


def pins(lock: str) -> dict[str, str]:
    """Name and version of every package of a lock file."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])

    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in tracked()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]

    assert not found


def test_no_file_is_binary() -> None:
    found = [str(path.relative_to(ROOT)) for path in tracked() if b"\0" in path.read_bytes()]

    assert not found


def test_locks_name_no_address_and_hash_every_package() -> None:
    for path in [*ROOT.glob("*.lock"), *ROOT.glob("tools/*.lock")]:
        text = path.read_text()
        blocks = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]

        assert "://" not in text, path.name
        assert blocks, path.name
        assert all("--hash=sha256:" in block for block in blocks), path.name


def test_the_locks_agree_on_every_version() -> None:
    dev = pins("requirements-dev.lock").items()

    assert pins("requirements.lock").items() <= pins("requirements-demo.lock").items() <= dev


def test_the_lock_holds_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[\[<>=!]", line)[0].lower() for line in project["dependencies"]}

    assert wanted <= set(pins("requirements.lock"))


@pytest.mark.parametrize("major", [14, 15, 16, 17, 18])
def test_each_postgresql_lock_holds_its_major(major: int) -> None:
    (version,) = pins(f"tools/postgresql-{major}.lock").values()

    assert version.startswith(f"{major}.")


def test_no_module_is_longer_than_a_person_reads_at_once() -> None:
    lengths = {
        str(path): text.count("\n") for path, text in python_files("opsd", "jobs", "deploy")
    }

    assert {path: n for path, n in lengths.items() if n > LONGEST_MODULE} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    lengths = {
        f"{path}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path, text in python_files("opsd", "jobs", "deploy", "tests")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.end_lineno
    }

    assert {name: n for name, n in lengths.items() if n > LONGEST_FUNCTION} == {}


def test_every_module_says_what_problem_it_solves() -> None:
    silent = [
        str(path)
        for path, text in python_files("opsd", "jobs", "tests", "deploy")
        if text.strip()
        and not path.name.startswith("test_")
        and not ast.get_docstring(ast.parse(text))
    ]

    assert silent == []
