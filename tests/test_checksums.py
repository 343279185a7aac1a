from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from opsd.backup.share.rsync import checksums
from tests.rig import shares

NAMES = st.binary(min_size=1, max_size=30).filter(lambda name: b"\0" not in name)


@given(path=NAMES)
def test_any_name_survives_the_list(path: bytes) -> None:
    digest = hashlib.sha256(path).hexdigest().encode()

    line = checksums.line(digest, path)

    assert line.count(b"\n") == 1
    assert checksums.parse(line[:-1]) == (digest, path)


def test_the_list_is_what_sha256sum_reads(tmp_path: Path) -> None:
    lines = []
    for name in sorted(shares.HOSTILE):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:  # noqa: PTH123 - bytes
            file.write(name)
        lines.append(checksums.line(hashlib.sha256(name).hexdigest().encode(), b"./" + name))

    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "-"],
        input=b"".join(lines),
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b": OK") == len(shares.HOSTILE)


def test_a_checksum_is_taken_over_from_the_same_inode_only() -> None:
    before = [(b"./a", b"1"), (b"./b", b"2"), (b"./gone", b"3")]
    listed = [(b"./a", b"A"), (b"./b", b"B"), (b"./gone", b"G")]
    now = [(b"./a", b"1"), (b"./b", b"9"), (b"./c", b"3")]

    found = list(checksums.reuse(now, before, listed))

    assert found == [(b"./a", b"A"), (b"./b", b""), (b"./c", b"")]


def test_a_file_that_the_list_lacks_is_read_again() -> None:
    found = list(checksums.reuse([(b"./a", b"1")], [(b"./a", b"1")], []))

    assert found == [(b"./a", b"")]


@given(paths=st.sets(NAMES, max_size=30), of=st.integers(1, 40))
def test_every_file_belongs_to_exactly_one_part(paths: set[bytes], of: int) -> None:
    for path in paths:
        assert sum(checksums.in_part(path, n=n, of=of) for n in range(1, of + 1)) == 1
