"""The oracle for leaked secrets finds one in every disguise, and nothing where none is."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.canaries import Canaries, Watch, descendants

SECRET = "c4nary-'Passw0rd'/+=&"
CANARIES = Canaries({"a secret": SECRET})


@pytest.mark.parametrize(
    "shown",
    [
        SECRET,
        quote(SECRET, safe=""),
        json.dumps({"x": SECRET}),
        repr([SECRET]),
        "PASSWORD 'c4nary-''Passw0rd''/+=&'",
        SECRET.encode().hex(),
    ],
)
def test_a_secret_is_found_in_every_form(shown: str) -> None:
    assert CANARIES.in_text(f"before {shown} after") == {"a secret"}


@given(st.binary(max_size=9), st.binary(max_size=9))
def test_a_secret_is_found_inside_what_is_in_base64(before: bytes, after: bytes) -> None:
    encoded = base64.b64encode(before + SECRET.encode() + after)

    assert CANARIES.in_bytes(encoded) == {"a secret"}


def test_what_is_no_secret_is_not_found() -> None:
    almost = SECRET[:-1] + quote(SECRET)[:-4] + "c4nary Passw0rd [redacted]"

    assert CANARIES.in_text(almost) == set()
    with pytest.raises(ValueError, match="too short"):
        Canaries({"a word": "postgres"[:7]})


def test_files_are_named_but_for_those_that_hold_secrets_by_right(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.db-wal").write_bytes(b"\0" + SECRET.encode() + b"\0")
    (tmp_path / "state" / "clean").write_text("nothing")
    (tmp_path / "secrets").write_text(SECRET)

    found = CANARIES.in_directory(tmp_path, besides=[tmp_path / "secrets"])

    assert found == {tmp_path / "state" / "state.db-wal": {"a secret"}}


def held(watch: Watch) -> bool:
    return any(b"c4nary-env" in one.environment for one in watch.seen)


def test_arguments_and_environments_of_children_are_seen() -> None:
    child = "import time; time.sleep(5)"
    script = "import subprocess, sys; subprocess.run(sys.argv[1:], env={'HIDDEN': 'c4nary-env'})"
    argv = [sys.executable, "-c", script, sys.executable, "-c", child, "c4nary-arg"]

    with subprocess.Popen(argv) as process, Watch(process.pid) as watch:
        try:
            until = time.monotonic() + 10
            while time.monotonic() < until and not held(watch):
                time.sleep(0.01)
        finally:
            for pid in descendants(process.pid):
                os.kill(pid, signal.SIGKILL)
            process.kill()

    assert held(watch)
    assert any(one.command.endswith(b"c4nary-arg\0") for one in watch.seen)
