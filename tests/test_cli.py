"""The contract of the command line: options, exit statuses, one JSON object, quick help."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import jobs
from opsd.cli import COMMANDS, main
from opsd.config import Table
from opsd.errors import PartialFailure, TransientError
from opsd.job import AnyJob, Context, Job, Observation
from opsd.model import Finding, Severity
from opsd.state.leases import lease

HEAVY = (
    "apprise", "apscheduler", "boto3", "jobs", "kubernetes", "paramiko", "psycopg",
    "pydantic", "rich", "structlog",
)  # fmt: skip
ESCAPE = "\x1b"


class NoSettings(Table):
    """A job without settings."""


def finding(severity: Severity, subject: str = "thing/one") -> Finding:
    return Finding(
        check="test.check",
        subject=subject,
        severity=severity,
        summary="something is odd",
        remedy="look at it",
    )


def quiet(_ctx: Context, _settings: NoSettings) -> Iterator[Observation]:
    yield from ()


def warns(_ctx: Context, _settings: NoSettings) -> Iterator[Observation]:
    yield finding(Severity.WARNING)


def alarms(_ctx: Context, _settings: NoSettings) -> Iterator[Observation]:
    yield finding(Severity.CRITICAL)


def fails(_ctx: Context, _settings: NoSettings) -> Iterator[Observation]:
    yield finding(Severity.CRITICAL)
    raise PartialFailure("1 of 2 failed: thing/one")


def hostile(_ctx: Context, _settings: NoSettings) -> Iterator[Observation]:
    yield finding(Severity.WARNING, subject=f"thing/a{ESCAPE}[31m\n\udcff\u202e")


def job(run: Any, group: str = "") -> AnyJob:
    return Job(
        name=run.__name__,
        summary=f"{run.__name__} on purpose",
        group=group,
        schedule="0 3 * * *",
        timeout=timedelta(minutes=1),
        settings=NoSettings,
        run=run,
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a configuration of the jobs above, which is the current one."""
    registry = tuple(
        job(run, group="pair" if run in (quiet, fails) else "")
        for run in (quiet, warns, alarms, fails, hostile)
    )
    tables = "".join(f"[jobs.{one.name}]\n" for one in registry)
    (tmp_path / "config.toml").write_text(f'[opsd]\nstate_dir = "{tmp_path}/state"\n{tables}')
    monkeypatch.setattr(jobs, "JOBS", (*registry, job(unconfigured)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPSD_CONFIG", raising=False)
    return tmp_path


def unconfigured(_ctx: Context, _settings: NoSettings) -> Iterator[Observation]:
    yield from ()


def told(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from opsd.cli import main; main(['--help']); "
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stderr.strip() == "[]"
    assert "run-job" in done.stdout


def test_the_guard_on_imports_sees_a_heavy_one() -> None:
    code = f"import sys, pydantic; print(sorted(set({HEAVY!r}) & set(sys.modules)))"

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.strip() == "['pydantic']"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = main([name, "--help"])

    out, _ = told(capsys)
    assert status == 0
    assert out.startswith(f"Usage: opsd {name}")


@pytest.mark.parametrize("arguments", [[], ["backups"], ["config"]])
def test_a_group_alone_shows_its_help_as_it_is(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(arguments)

    out, err = told(capsys)
    assert status == 2
    assert out == ""
    assert err.startswith("Usage: opsd")
    assert "  --config PATH" in err


def test_the_hidden_command_is_not_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])

    out, _ = told(capsys)
    assert "notify-test" in out
    assert "deliver" not in out


def test_a_misspelt_command_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["run-jbo"])

    _, err = told(capsys)
    assert status == 2
    assert 'Did you mean "run-job"?' in err


@pytest.mark.parametrize(
    ("name", "options", "status"),
    [
        ("quiet", [], 0),
        ("warns", [], 0),
        ("warns", ["--fail-on", "warning"], 3),
        ("alarms", [], 3),
        ("alarms", ["--fail-on", "warning"], 3),
        ("alarms", ["--fail-on", "never"], 0),
        ("fails", [], 1),
        ("fails", ["--fail-on", "never"], 1),
        ("pair", [], 1),
    ],
)
@pytest.mark.usefixtures("home")
def test_the_exit_status_says_how_it_went(name: str, options: list[str], status: int) -> None:
    assert main(["run-job", name, *options]) == status


def test_a_held_lease_is_told_by_its_own_status(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from opsd.clock import SystemClock  # noqa: PLC0415 - beside its use

    with lease(home / "state/leases", "quiet", run_id="0123456789ab", clock=SystemClock()):
        status = main(["run-job", "quiet", "-o", "json"])

    out, _ = told(capsys)
    [run] = json.loads(out)["runs"]
    assert status == 75
    assert run["outcome"] == "skipped"
    assert "0123456789ab" in run["error"]


@pytest.mark.usefixtures("home")
def test_a_group_goes_on_after_a_failed_job(capsys: pytest.CaptureFixture[str]) -> None:
    main(["run-job", "pair", "-o", "json"])

    out, _ = told(capsys)
    outcomes = {run["job"]: run["outcome"] for run in json.loads(out)["runs"]}
    assert outcomes == {"quiet": "completed", "fails": "failed"}


def interrupts(_ctx: Context, _settings: NoSettings) -> Iterator[Observation]:
    yield finding(Severity.INFO)
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_group_does_not_go_on_with_the_next_job(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = (job(interrupts, group="pair"), job(quiet, group="pair"))
    monkeypatch.setattr(jobs, "JOBS", registry)
    (home / "config.toml").write_text(
        f'[opsd]\nstate_dir = "{home}/state"\n[jobs.interrupts]\n[jobs.quiet]\n'
    )

    status = main(["run-job", "pair", "-o", "json"])

    runs = json.loads(told(capsys)[0])["runs"]
    assert status == 1
    assert [run["outcome"] for run in runs] == ["interrupted"]


def test_a_disabled_job_is_left_out_of_its_group_and_still_runs_by_name(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = home / "config.toml"
    config.write_text(config.read_text().replace("[jobs.fails]", "[jobs.fails]\nenabled = false"))

    group = main(["run-job", "pair", "-o", "json"])
    out, _ = told(capsys)
    named = main(["run-job", "fails"])

    assert group == 0
    assert [run["job"] for run in json.loads(out)["runs"]] == ["quiet"]
    assert named == 1


@pytest.mark.usefixtures("home")
def test_an_unknown_job_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["run-job", "quite"])

    _, err = told(capsys)
    assert status == 2
    assert 'did you mean "quiet"?' in err


@pytest.mark.usefixtures("home")
def test_a_job_without_a_table_names_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["run-job", "unconfigured"])

    _, err = told(capsys)
    assert status == 2
    assert "[jobs.unconfigured]" in err


@pytest.mark.usefixtures("home")
def test_jobs_lists_what_is_not_configured_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    main(["jobs", "-o", "json"])

    out, _ = told(capsys)
    by_name = {one["job"]: one for one in json.loads(out)["jobs"]}
    assert by_name["quiet"]["next_slot"]
    assert by_name["unconfigured"]["configured"] is False
    assert by_name["unconfigured"]["next_slot"] is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["-o", "json", "run-job", "hostile"],
        ["run-job", "-o", "json", "hostile"],
        ["run-job", "hostile", "--output=json"],
        ["run-job", "hostile", "--output", "json"],
        ["-o", "text", "run-job", "hostile", "-ojson"],
    ],
)
@pytest.mark.usefixtures("home")
def test_the_output_is_chosen_before_or_after_the_command(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(arguments)

    out, _ = told(capsys)
    assert json.loads(out)["runs"][0]["job"] == "hostile"


@pytest.mark.parametrize("before", [True, False])
def test_the_configuration_is_named_before_or_after_the_command(
    home: Path, monkeypatch: pytest.MonkeyPatch, *, before: bool
) -> None:
    named = (home / "config.toml").rename(home / "other.toml")
    monkeypatch.setenv("OPSD_CONFIG", "/nowhere/config.toml")
    option = ["--config", str(named)]

    status = main([*option, "jobs"] if before else ["jobs", *option])

    assert status == 0


def test_the_environment_names_the_configuration(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = (home / "config.toml").rename(home / "other.toml")
    monkeypatch.setenv("OPSD_CONFIG", str(named))

    assert main(["jobs"]) == 0


def test_without_a_configuration_it_is_said_where_it_was_looked_for(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "config.toml").unlink()

    status = main(["jobs"])

    _, err = told(capsys)
    assert status == 2
    assert "config.toml and /etc/opsd/config.toml" in err


def test_every_problem_of_the_configuration_has_its_own_line(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "config.toml").write_text('[opsd]\ntimezone = "X"\nlog_level = "Y"\n')

    status = main(["jobs"])

    _, err = told(capsys)
    assert status == 2
    assert [line.split(": ")[1] for line in err.splitlines()] == ["config.toml:2", "config.toml:3"]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["jobs", "--nonsense"], 2), (["run-job", "nonsense"], 2), (["history", "--limit", "x"], 2)],
)
@pytest.mark.usefixtures("home")
def test_an_error_is_one_json_object_too(
    arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "-o", "json"]) == status

    out, _ = told(capsys)
    error = json.loads(out)["error"]
    assert error["exit_status"] == status
    assert error["lines"]


@pytest.mark.usefixtures("home")
def test_an_unexpected_error_is_one_line_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from opsd.secrets import conceal  # noqa: PLC0415 - beside its use

    conceal("hunter2canary")
    monkeypatch.setattr("opsd.configfile.load", broken)

    status = main(["jobs"])
    _, plain = told(capsys)
    main(["--debug", "jobs"])
    _, debug = told(capsys)

    assert status == 1
    assert plain.count("\n") == 1
    assert "--debug" in plain
    assert "Traceback" in debug
    assert "hunter2canary" not in plain + debug


def broken(*_: object) -> None:
    raise ZeroDivisionError("hunter2canary")


@pytest.mark.usefixtures("home")
def test_results_go_to_stdout_and_logs_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    main(["run-job", "warns"])

    out, err = told(capsys)
    assert "run.started" not in out
    events = [json.loads(line)["event"] for line in err.splitlines()]
    assert events[0] == "run.started"
    assert events[-1] == "run.ended"
    assert "something is odd" in out
    assert "look at it" in out


@pytest.mark.usefixtures("home")
def test_hostile_names_are_printed_without_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for arguments in (["run-job", "hostile"], ["findings"], ["status"], ["history"]):
        main(arguments)

        out, err = told(capsys)
        assert ESCAPE not in out + err
        assert "\u202e" not in out


@pytest.mark.usefixtures("home")
def test_a_dry_run_leaves_no_record(capsys: pytest.CaptureFixture[str]) -> None:
    main(["run-job", "warns", "--dry-run"])
    told(capsys)
    main(["history", "-o", "json"])

    out, _ = told(capsys)
    assert json.loads(out) == {"runs": []}


@pytest.mark.usefixtures("home")
def test_history_and_findings_show_what_was_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    main(["run-job", "warns"])
    main(["run-job", "fails"])
    told(capsys)

    main(["history", "-o", "json"])
    runs = json.loads(told(capsys)[0])["runs"]
    main(["history", "--job", "warns", "-o", "json"])
    of_job = json.loads(told(capsys)[0])["runs"]
    main(["findings", "-o", "json"])
    findings = json.loads(told(capsys)[0])["findings"]

    assert [run["job"] for run in runs] == ["fails", "warns"]
    assert [run["job"] for run in of_job] == ["warns"]
    assert [one["severity"] for one in findings] == ["critical", "critical", "warning"]


@pytest.mark.usefixtures("home")
def test_no_findings_before_the_first_run_is_not_called_healthy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["findings"])
    before, _ = told(capsys)
    main(["run-job", "quiet"])
    told(capsys)
    main(["findings"])
    after, _ = told(capsys)

    assert "nothing is known" in before
    assert "No open findings" in after


@pytest.mark.usefixtures("home")
def test_status_says_when_something_needs_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    main(["run-job", "quiet"])
    healthy = main(["status"])
    main(["run-job", "warns"])
    told(capsys)
    ill = main(["status", "-o", "json"])

    status = json.loads(told(capsys)[0])
    assert healthy == 0
    assert ill == 3
    assert [one["check"] for one in status["findings"]] == ["test.check"]
    last = {one["job"]: one["last_run"] for one in status["jobs"]}
    assert last["warns"]["outcome"] == "completed"
    assert last["alarms"] is None


def test_status_says_when_a_repository_cannot_be_read(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (home / "config.toml").open("a") as config:
        config.write(f'[repositories.gone]\ntype = "directory"\npath = "{home}/gone"\n')

    status = main(["status"])

    out, _ = told(capsys)
    assert status == 1
    assert "could not tell what is in gone" in out


def test_status_says_when_the_state_cannot_be_read(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "state").mkdir()
    (home / "state/state.db").write_text("this is no database\n" * 100)

    status = main(["status"])

    out, _ = told(capsys)
    assert status == 1
    assert "could not tell what was run" in out


def test_check_tells_what_is_missing_and_what_to_do(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPSD_TEST_GONE", raising=False)
    with (home / "config.toml").open("a") as config:
        config.write(f'[repositories.gone]\ntype = "directory"\npath = "{home}/gone"\n')
        config.write('[[alerts.targets]]\nname = "phone"\nurl = "env:OPSD_TEST_GONE"\n')

    status = main(["check", "-o", "json"])

    checks = {one["what"]: one for one in json.loads(told(capsys)[0])["checks"]}
    assert status == 1
    assert checks["state directory"]["state"] == "ok"
    assert checks["repository/gone"]["state"] == "failed"
    assert checks["secret env:OPSD_TEST_GONE"]["remedy"] == "export OPSD_TEST_GONE=..."
    assert checks["alerts target phone"]["state"] == "failed"
    assert checks["quiet"]["state"] == "ok"
    assert checks["fails"]["state"] == "failed"


def test_check_is_content_when_all_is_there(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "there").mkdir()
    monkeypatch.setenv("OPSD_TEST_URL", "json://127.0.0.1:9/")
    (home / "config.toml").write_text(
        f'[opsd]\nstate_dir = "{home}/state"\n'
        f'[repositories.there]\ntype = "directory"\npath = "{home}/there"\n'
        '[[alerts.targets]]\nname = "phone"\nurl = "env:OPSD_TEST_URL"\n[jobs.quiet]\n'
    )

    status = main(["check"])

    out, _ = told(capsys)
    assert status == 0
    assert "Ready" in out


def test_a_secret_that_everybody_can_read_is_a_warning(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = home / "url"
    secret.write_text("json://127.0.0.1:9/\n")
    with (home / "config.toml").open("a") as config:
        config.write(f'[[alerts.targets]]\nname = "phone"\nurl = "file:{secret}"\n')
    states = []

    for mode in (0o644, 0o600):
        secret.chmod(mode)
        main(["check", "-o", "json"])
        checks = json.loads(told(capsys)[0])["checks"]
        states += [one["state"] for one in checks if one["what"] == f"secret file:{secret}"]

    assert states == ["warning", "ok"]


@pytest.mark.usefixtures("home")
def test_config_show_and_schema_print_what_the_loader_knows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["config", "show"])
    shown, _ = told(capsys)
    main(["config", "schema"])
    schema = json.loads(told(capsys)[0])

    assert 'timezone = "UTC"  # default' in shown
    assert "[jobs.quiet]" in shown
    assert "quiet" in schema["$defs"]["JobsTable"]["properties"]


@pytest.mark.usefixtures("home")
def test_a_reader_that_leaves_early_is_no_error() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m opsd config schema | head -c 10"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )

    assert done.stderr == ""


def test_colours_are_for_terminals_only(home: Path) -> None:
    (home / "config.toml").write_text(f'[opsd]\nstate_dir = "{home}/state"\n')
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "TERM": "xterm-256color",
    }
    environment.pop("NO_COLOR", None)

    coloured = on_terminal(["status"], environment, home)
    plain = on_terminal(["status"], {**environment, "NO_COLOR": "1"}, home)

    assert f"{ESCAPE}[3" in coloured
    assert f"{ESCAPE}[3" not in plain
    assert "No job is configured" in plain


def on_terminal(arguments: list[str], environment: dict[str, str], directory: Path) -> str:
    """What a command prints when stdout is a terminal."""
    controlling, terminal = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "opsd", *arguments],
            stdout=terminal,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=directory,
        )
        os.close(terminal)
        output = b""
        while True:
            try:
                piece = os.read(controlling, 65536)
            except OSError:  # the other end is closed
                break
            output += piece
        process.wait(60)
    finally:
        os.close(controlling)
    return output.decode()


@pytest.mark.usefixtures("home")
def test_an_error_of_the_state_ends_with_1_and_names_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise TransientError("state.db is busy")

    monkeypatch.setattr("opsd.state.sqlite.SqliteState", refuse)

    status = main(["history"])

    assert status == 1
    assert told(capsys)[1] == "opsd: state.db is busy\n"
