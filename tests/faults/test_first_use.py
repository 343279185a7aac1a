"""Threads that are the first to read a type do not crash the process.

While one thread builds what msgspec must know of a dataclass, a second one that reads the same
type used what was half built, and the process died of a segmentation fault. Random kills found
it: one start in some hundreds, when a run read its first manifests with several threads.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TOGETHER = """
import sys, threading, time
from datetime import UTC, datetime
from opsd.backup.manifest import Manifest, Verification, decode, encode
from opsd.backup.prune import Tombstone, _read_tombstone
from opsd.incidents import AlertState, Incident
from opsd.model import Finding, Severity
from opsd.state.records import pack, unpack
from opsd.testing import MemoryRepository
import msgspec

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
PROOF = Verification(level="parsed", at=NOON, ok=True)
MANIFEST = Manifest(kind="pg_dump", subject="database/main/app", slot=NOON, run_id="a",
                    created_at=NOON, key="", size_bytes=1, sha256="x", verified=(PROOF,))
KEY = "database/main/app/20261122T120000Z"
TOMBSTONE = Tombstone(key=f"{KEY}.json", manifest=MANIFEST, at=NOON, reasons=("old",))
REPOSITORY = MemoryRepository()
REPOSITORY.create(f"{KEY}.tombstone", msgspec.json.encode(TOMBSTONE))
FINDING = Finding(check="x", subject="s/a", severity=Severity.CRITICAL, summary="s")
ALERTS = pack(AlertState(incidents=(Incident(job="j", finding=FINDING, opened_at=NOON),)))
CONTENT = encode(MANIFEST)

def dawdle(frame, event, _arg):
    if event == "call" and frame.f_code.co_name == "get_dataclass_info":
        time.sleep(0.02)

def read(number):
    time.sleep(number * 0.005)
    {first_use}
    done.append(number)

done = []
threading.setprofile(dawdle)
threads = [threading.Thread(target=read, args=(number,)) for number in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(done))
"""


@pytest.mark.parametrize(
    "first_use",
    [
        'decode(CONTENT, key="k")',
        '_read_tombstone(REPOSITORY, f"{KEY}.tombstone")',
        "unpack(ALERTS, AlertState)",
    ],
    ids=["manifest", "tombstone", "record"],
)
def test_threads_that_read_a_type_first_do_not_crash(first_use: str) -> None:
    code = TOGETHER.replace("{first_use}", first_use)

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout.strip()) == (0, "12"), done.stderr
