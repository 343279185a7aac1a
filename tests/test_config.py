"""The configuration: every wrong file tells what is wrong, and the example says what is right."""

from __future__ import annotations

import os
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import JOBS
from opsd.config import (
    AlertTarget,
    DirectoryTable,
    format_duration,
    format_size,
    parse_duration,
    parse_secret,
    parse_size,
)
from opsd.configfile import load
from opsd.configfile.showing import MARK, as_toml
from opsd.errors import ConfigError
from opsd.secrets import Secret

GOLDEN = Path(__file__).parent / "golden/config"
EXAMPLE = Path(__file__).parent.parent / "config.toml.example"
CANARIES = ("canary", "hunter2")


def problems(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, JOBS)
    assert caught.value.__cause__ is None or not isinstance(caught.value.__cause__, ValueError)
    return str(caught.value)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.toml")), ids=lambda path: path.stem)
def test_a_wrong_file_is_told_as_its_golden_text_says(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(GOLDEN)

    told = problems(Path(path.name))

    assert told.splitlines() == path.with_suffix(".txt").read_text().splitlines()
    assert not any(canary in told for canary in CANARIES)


def test_there_are_more_than_twenty_wrong_files() -> None:
    assert len(list(GOLDEN.glob("*.toml"))) > 20
    assert {path.stem for path in GOLDEN.glob("*.toml")} == {
        path.stem for path in GOLDEN.glob("*.txt")
    }


def test_every_problem_names_the_line_of_its_key() -> None:
    path = GOLDEN / "many_at_once.toml"
    lines = path.read_text().splitlines()

    told = problems(path).splitlines()

    for problem, key in zip(
        told,
        ["timezone", "[repositories.usb]", "pth", "ubs", "shedule", "port", "password"],
        strict=True,
    ):
        number = int(problem.removeprefix(f"{path}:").split(":")[0])
        assert key in lines[number - 1]


def test_a_missing_file_says_how_to_name_one(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"

    assert problems(path).startswith(f"{path}: no such file; name the file with --config")


def test_a_directory_is_not_a_configuration(tmp_path: Path) -> None:
    assert problems(tmp_path).startswith(f"{tmp_path}: cannot be read: Is a directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_says_so(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    path.chmod(0)

    assert "cannot be read: Permission denied" in problems(path)


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b'\xef\xbb\xbf[opsd]\r\ntimezone = "Europe/Berlin"\r\n')

    config = load(path, JOBS)

    assert config.timezone.key == "Europe/Berlin"


def test_lines_are_right_in_a_file_with_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"# one\r\n# two\r\n[opsd]\r\ntimezone = 5\r\n")

    assert problems(path).startswith(f"{path}:4: opsd.timezone:")


def test_brackets_without_end_are_an_error_not_a_crash(tmp_path: Path) -> None:
    path = written(tmp_path, "a = " + "[" * 100_000)

    assert problems(path).startswith(f"{path}")


def test_a_file_with_one_table_runs_on_documented_defaults(tmp_path: Path) -> None:
    config = load(written(tmp_path, "[opsd]\n"), JOBS)

    assert config.state_dir == Path("/var/lib/opsd")
    assert config.timezone.key == "UTC"
    assert config.log_level == "info"
    assert not config.repositories
    assert not config.targets
    assert not config.jobs


def test_a_job_with_a_table_has_its_own_defaults(tmp_path: Path) -> None:
    [job] = [job for job in JOBS if job.name == "postgres-backup"]
    path = written(
        tmp_path,
        '[repositories.usb]\ntype = "directory"\npath = "/srv"\n[jobs.postgres-backup]\n'
        'repositories = ["usb"]\nservers = [{ name = "main", host = "db" }]\n',
    )

    entry = load(path, JOBS).jobs["postgres-backup"]

    assert entry.job is job
    assert entry.enabled
    assert entry.schedule == job.schedule
    assert entry.timeout == job.timeout
    assert isinstance(entry.settings, job.settings)


def test_what_the_file_says_wins_over_defaults(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[repositories.usb]\ntype = "directory"\npath = "/srv"\n[jobs.postgres-backup]\n'
        'enabled = false\nschedule = "@weekly"\ntimeout = "90s"\n'
        'repositories = ["usb"]\nservers = [{ name = "main", host = "db" }]\n',
    )

    entry = load(path, JOBS).jobs["postgres-backup"]

    assert not entry.enabled
    assert entry.schedule == "@weekly"
    assert entry.timeout == timedelta(seconds=90)


def test_the_example_loads_and_names_every_job() -> None:
    config = load(EXAMPLE, JOBS)

    assert set(config.jobs) == {job.name for job in JOBS}
    assert EXAMPLE.read_text().startswith("#:schema ./config.schema.json\n")


def test_what_the_example_says_are_the_defaults() -> None:
    document = load(EXAMPLE, JOBS).document

    assert list(differing_from_default(document)) == []


def differing_from_default(table: Any, place: str = "") -> list[str]:
    """Keys of the example that are neither required, nor tables, nor equal to their default."""
    found = []
    for name, field in type(table).model_fields.items():
        value = getattr(table, name)
        here = f"{place}.{name}"
        if hasattr(value, "model_fields_set"):
            found += differing_from_default(value, here)
        elif isinstance(value, dict | tuple) and value:
            entries = value.values() if isinstance(value, dict) else value
            tables = [entry for entry in entries if hasattr(entry, "model_fields_set")]
            for entry in tables:
                found += differing_from_default(entry, here)
            if not tables and not field.is_required() and default(field) not in (None, value):
                found.append(here)
        elif not field.is_required() and default(field) not in (None, value):
            found.append(here)
    return found


def default(field: Any) -> Any:
    return field.get_default(call_default_factory=True, validated_data={})


def test_what_is_shown_loads_again_and_means_the_same(tmp_path: Path) -> None:
    document = load(EXAMPLE, JOBS).document

    shown = as_toml(document)
    again = load(written(tmp_path, shown), JOBS).document

    assert again == document
    assert tomllib.loads(shown)


def test_only_defaults_are_marked_as_such(tmp_path: Path) -> None:
    text = '[repositories.usb]\ntype = "directory"\npath = "/srv"\n'

    shown = as_toml(load(written(tmp_path, text), JOBS).document).splitlines()

    assert 'path = "/srv"' in shown
    assert f"mounted = false{MARK}" in shown


def test_secrets_are_shown_as_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSD_TEST_URL", "ntfys://canarytopic")
    text = '[[alerts.targets]]\nname = "phone"\nurl = "env:OPSD_TEST_URL"\n'
    config = load(written(tmp_path, text), JOBS)
    config.targets[0].url.reveal()

    shown = as_toml(config.document)

    assert 'url = "env:OPSD_TEST_URL"' in shown
    assert "canary" not in shown


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("90s", 90), ("10m", 600), ("36h", 129600), ("7d", 604800), ("2w", 1209600)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("raw", ["", "5", "5 m", "-5m", "1.5h", "5y", 5, 5.0, True, None, "5m\n"])
def test_anything_else_is_not_a_duration(raw: object) -> None:
    with pytest.raises(ValueError, match="with a unit"):
        parse_duration(raw)


@given(st.integers(min_value=0, max_value=10**9))
def test_a_formatted_duration_reads_as_itself(seconds: int) -> None:
    value = timedelta(seconds=seconds)

    assert parse_duration(format_duration(value)) == value


@given(st.integers(min_value=0, max_value=1 << 60))
def test_a_formatted_size_reads_as_itself(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize("raw", ["", "5", "5MB", "5 mib", "-1MiB", True, 1.5])
def test_anything_else_is_not_a_size(raw: object) -> None:
    with pytest.raises(ValueError, match="with a unit"):
        parse_size(raw)


@pytest.mark.parametrize("raw", ["env:A", "env:_a1", "file:/run/secrets/x", "file:/a b"])
def test_a_secret_is_a_reference(raw: str) -> None:
    assert parse_secret(raw) == Secret(raw)


@pytest.mark.parametrize("raw", ["hunter2", "env:", "env:1A", "env:A B", "file:relative", "", 5])
def test_anything_else_is_not_a_secret_and_is_not_repeated(raw: object) -> None:
    with pytest.raises(ValueError, match="a reference") as caught:
        parse_secret(raw)

    assert "hunter2" not in str(caught.value)


def test_tables_are_read_only() -> None:
    table = DirectoryTable(type="directory", path=Path("/srv"))

    with pytest.raises(ValueError, match="frozen"):
        table.path = Path("/elsewhere")  # type: ignore[misc]


def test_printing_a_table_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSD_TEST_URL", "ntfys://canarytopic")
    target = AlertTarget(name="phone", url=Secret("env:OPSD_TEST_URL"))
    target.url.reveal()

    assert "canary" not in repr(target)
