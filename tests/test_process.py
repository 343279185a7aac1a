from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from opsd import secrets
from opsd.clients import groups, process
from opsd.clients.process import (
    STDERR_TAIL_BYTES,
    Process,
    ProgramMissing,
    complaint,
    find_program,
    lines,
    run,
)
from opsd.clock import Deadline, SystemClock
from opsd.errors import DeadlineExceeded, PermanentError
from tests.rig import hungfs


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TERM_GRACE_S", 0.3)
    monkeypatch.setattr(process, "KILL_GRACE_S", 0.5)


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    assert groups._groups == set(), request.node.name


def soon(seconds: float = 30) -> Deadline:
    return Deadline.after(seconds, SystemClock())


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def ends(pid: int) -> bool:
    """Whether the process is gone within ten seconds."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_program_that_ends_gives_its_status_and_both_outputs() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"

    done = run(python(code), deadline=soon())

    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", "err\n")
    assert done.complaint() == "err (exit status 3)"


def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(ProgramMissing, match="opsd-no-such-program is not installed"):
        run(["opsd-no-such-program"], deadline=soon())
    with pytest.raises(ProgramMissing):
        find_program("opsd-no-such-program")


def test_a_program_that_overstays_is_killed_and_its_last_words_are_told() -> None:
    code = (
        "import sys,time; print('connecting to db', file=sys.stderr, flush=True); time.sleep(60)"
    )

    with pytest.raises(DeadlineExceeded, match=r"did not end in time.*connecting to db"):
        run(python(code), deadline=soon(1.0))


def test_no_time_left_starts_nothing() -> None:
    with pytest.raises(DeadlineExceeded):
        run(["true"], deadline=soon(-1))


def test_a_program_that_ignores_sigterm_is_killed() -> None:
    code = (
        "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('ready', flush=True); time.sleep(60)"
    )
    with Process(python(code), deadline=soon()) as child:
        assert child.read() == b"ready\n"

        child.kill()

        assert not child.is_running()


def test_a_stopped_program_is_killed() -> None:
    with Process(["sleep", "60"], deadline=soon()) as child:
        os.kill(child.pid, signal.SIGSTOP)

        child.kill()

        assert not child.is_running()


_PARENT_OF_A_SLEEPER = """
import subprocess, sys, time
child = subprocess.Popen(["sleep", "60"], stderr=subprocess.DEVNULL)
print(child.pid, flush=True)
if sys.argv[1] == "stay":
    time.sleep(60)
"""


@pytest.mark.parametrize("manner", ["stay", "go"])
def test_what_a_program_started_goes_with_it(manner: str) -> None:
    with Process(python(_PARENT_OF_A_SLEEPER, manner), deadline=soon()) as parent:
        grandchild = int(parent.read())
        if manner == "go":
            assert parent.wait() == 0

    assert ends(grandchild)


def test_a_grandchild_that_holds_the_outputs_does_not_hold_up_the_end() -> None:
    done = run(python(_PARENT_OF_A_SLEEPER, "go"), deadline=soon())

    assert done.returncode == 0
    assert ends(int(done.stdout))


def test_five_megabytes_of_complaints_neither_block_nor_pile_up() -> None:
    code = "import sys; sys.stderr.write('x' * 99 + '\\n' + ('y' * 99 + '\\n') * 50000)"

    done = run(python(code), deadline=soon())

    assert done.returncode == 0
    assert len(done.stderr) <= STDERR_TAIL_BYTES
    assert set(done.stderr.splitlines()) == {"y" * 99}


def test_complaints_that_are_not_utf8_are_escaped() -> None:
    code = "import os; os.write(2, b'relation \"na\\xffme\" is missing\\n')"

    assert run(python(code), deadline=soon()).stderr == 'relation "na\\xffme" is missing\n'


def test_a_secret_in_a_complaint_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_revealed", ())
    secrets.conceal("c4nary-secret")
    code = "import os,sys; print('login failed:', os.environ['PW'], file=sys.stderr); sys.exit(1)"

    done = run(python(code), deadline=soon(), env={"PW": "c4nary-secret"})

    assert done.complaint() == f"login failed: {secrets.MASK} (exit status 1)"


def test_a_secret_cut_in_two_by_the_tail_is_not_half_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(secrets, "_revealed", ())
    secrets.conceal("s3cret" * 10)
    rest = STDERR_TAIL_BYTES - 30
    code = f"import sys; sys.stderr.write('s3cret' * 10 + '\\n' + 'z' * {rest - 2} + '\\n')"

    assert "s3cret" not in run(python(code), deadline=soon()).stderr


def test_a_program_sees_only_the_environment_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPSD_S3_SECRET", "hidden")

    done = run(["env"], deadline=soon(), env={"PGPASSWORD": "given"})

    assert b"PGPASSWORD=given\n" in done.stdout
    assert b"hidden" not in done.stdout


def test_more_output_than_allowed_is_refused() -> None:
    with pytest.raises(PermanentError, match="more than 1000 bytes"):
        run(["yes"], deadline=soon(), stdout_limit=1000)


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_input_of_any_size_goes_through_a_program(size: int) -> None:
    given = b"x" * size

    assert run(["cat"], deadline=soon(), input=given).stdout == given


def test_input_that_nobody_reads_is_no_error() -> None:
    assert run(["true"], deadline=soon(), input=b"x" * 5_000_000).returncode == 0


def test_a_program_that_stops_reading_its_input_is_killed_at_the_deadline() -> None:
    with (
        pytest.raises(DeadlineExceeded),
        Process(["sleep", "60"], deadline=soon(1.0), stdin=True) as child,
    ):
        child.write(b"x" * 5_000_000)


def test_writing_to_a_program_that_has_ended_is_a_broken_pipe() -> None:
    with Process(["true"], deadline=soon(), stdin=True) as child:
        with pytest.raises(BrokenPipeError):
            child.write(b"x" * 5_000_000)

        assert child.wait() == 0


def test_lines_come_whole_however_they_were_written() -> None:
    code = (
        "import sys,time\n"
        "for piece in ('one\\ntw', 'o\\n', '\\nlast'):\n"
        "    sys.stdout.write(piece); sys.stdout.flush(); time.sleep(0.05)"
    )
    with Process(python(code), deadline=soon()) as child:
        assert list(lines(child)) == [b"one", b"two", b"", b"last"]


def test_a_killed_program_is_told_by_its_signal() -> None:
    assert complaint("", -9) == "killed by signal 9"
    assert complaint("a\n\n b \n\n", 1) == "b (exit status 1)"


def test_everything_that_runs_can_be_ended_at_once() -> None:
    with (
        Process(["sleep", "60"], deadline=soon()) as one,
        Process(["sleep", "60"], deadline=soon()) as two,
    ):
        groups.kill_all()

        assert (one.wait(), two.wait()) == (-9, -9)


def test_a_program_that_shares_our_stderr_is_waited_for(
    capfd: pytest.CaptureFixture[str],
) -> None:
    code = "import sys; print('dropped'); print('logged', file=sys.stderr); sys.exit(4)"
    with Process(python(code), deadline=soon(), shares_stderr=True) as child:
        assert child.wait() == 4

    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "logged\n")


_STARTS_A_SLEEPER = """
from pathlib import Path
from opsd.clients.process import Process
from opsd.clock import Deadline, SystemClock
with Process(["sleep", "600"], deadline=Deadline.after(600, SystemClock())) as child:
    while Path(f"/proc/{child.pid}/comm").read_text() != "sleep\\n":
        pass  # the signal is asked for just before
    print(child.pid, flush=True)
    child.wait()
"""


def test_a_program_does_not_outlive_opsd_even_when_that_is_killed() -> None:
    with subprocess.Popen(python(_STARTS_A_SLEEPER), stdout=subprocess.PIPE, text=True) as opsd:
        assert opsd.stdout is not None
        child = int(opsd.stdout.readline())
        opsd.kill()
        opsd.wait()

    assert ends(child)


def test_a_program_runs_while_the_thread_that_started_it_waits() -> None:
    results: list[int] = []
    thread = threading.Thread(
        target=lambda: results.append(run(["sleep", "0.2"], deadline=soon()).returncode)
    )
    thread.start()
    thread.join()

    assert results == [0]


@pytest.mark.real
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_program_that_not_even_sigkill_ends_is_left_behind_and_reported() -> None:
    with (
        hungfs.mounted() as dead,
        structlog.testing.capture_logs() as told,
        pytest.raises(DeadlineExceeded, match="stat did not end in time"),
    ):
        run(["stat", str(dead / "file")], deadline=soon(0.5))

    (line,) = [line for line in told if line["event"] == "process.left_behind"]
    assert line["program"] == "stat"
    assert ends(line["pid"])
