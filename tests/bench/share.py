"""Shares: what opsd costs on top of restic and rsync, on many small files and a few large."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import Measured, interleaved, measure
from tests.bench.report import Line

ROUNDS = 2
SMALL_FILES = 50_000
SMALL_BYTES = (200, 12_000)
LARGE_FILES = (256 << 20, 128 << 20)

CONFIG = """\
[opsd]
state_dir = "{place}/state"
[repositories.bench]
type = "directory"
path = "{place}/repository"
[jobs.nfs-backup]
[[jobs.nfs-backup.shares]]
name = "share"
path = "{source}"
mounted = false
engine = "{engine}"
repository = "bench"
{password}
"""


def lines(place: Path) -> Iterator[Line]:
    """Measure the first and an unchanged run of both engines."""
    source = place / "source"
    _fill(source)
    os.environ["RESTIC_PASSWORD"] = "bench"
    os.environ["OPSD_BENCH_PASSWORD"] = "bench"
    for engine in ("restic", "rsync"):
        yield from _compare(place, source, engine)


def _compare(place: Path, source: Path, engine: str) -> Iterator[Line]:
    bare = _Bare(engine, source, place / f"bare-{engine}")
    wrapped = _Wrapped(engine, source, place / f"opsd-{engine}")
    for kind, prepare in (("first", True), ("unchanged", False)):

        def once(subject: _Bare | _Wrapped, *, prepare: bool = prepare) -> Measured:
            if prepare:
                subject.reset()
            return subject.run()

        result = interleaved(
            {"bare": lambda: once(bare), "opsd": lambda: once(wrapped)}, rounds=ROUNDS
        )
        bare_run, ours = result["bare"], result["opsd"]
        for what, value, against, goal in (
            ("copied: wall", ours.stage_s, bare_run.wall_s, 1.05),
            ("proof and start included: wall", ours.wall_s, bare_run.wall_s, None),
            ("proof and start included: CPU", ours.cpu_s, bare_run.cpu_s, None),
        ):
            yield Line(
                what=f"{engine}, {kind} run, {what}",
                value=value / against,
                unit="x",
                goal=goal,
                against=f"bare {engine}: {against:.1f} s",
            )
        yield Line(
            what=f"{engine}, {kind} run, peak memory of opsd",
            value=result["opsd"].peak_mib,
            unit="MiB",
            goal=None,
            against="opsd's own process, without the engine",
        )


class _Bare:
    """The engine as an owner would script it."""

    def __init__(self, engine: str, source: Path, place: Path) -> None:
        self._engine, self._source, self._place = engine, source, place
        self._numbers = itertools.count()
        self._previous: Path | None = None

    def reset(self) -> None:
        shutil.rmtree(self._place, ignore_errors=True)
        self._place.mkdir()
        self._previous = None
        if self._engine == "restic":
            measure(["restic", "-r", self._place, "init"])

    def run(self) -> Measured:
        if self._engine == "restic":
            return measure(
                [
                    "restic",
                    "-r",
                    self._place,
                    "--cache-dir",
                    self._place / "cache",
                    "backup",
                    self._source,
                ]
            )
        target = self._place / str(next(self._numbers))
        link = [f"--link-dest={self._previous}"] if self._previous else []
        self._previous = target
        return measure(["rsync", "-aHAXS", "--numeric-ids", *link, f"{self._source}/", target])


class _Wrapped:
    """The same through opsd, with its guards and its proof."""

    def __init__(self, engine: str, source: Path, place: Path) -> None:
        self._place = place
        password = 'password = "env:OPSD_BENCH_PASSWORD"' if engine == "restic" else ""
        self._text = CONFIG.format(place=place, source=source, engine=engine, password=password)

    def reset(self) -> None:
        shutil.rmtree(self._place, ignore_errors=True)
        (self._place / "repository").mkdir(parents=True)
        (self._place / "config.toml").write_text(self._text)

    def run(self) -> Measured:
        opsd = Path(sys.executable).with_name("opsd")
        config = self._place / "config.toml"
        return measure([opsd, "--config", config, "run-job", "nfs-backup"], stage="copy.ended")


def _fill(source: Path) -> None:
    chance = random.Random(1)  # noqa: S311 - sample data
    for number in range(SMALL_FILES):
        file = source / f"volume-{number % 20}" / f"{number // 1000}" / f"file-{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(chance.randbytes(chance.randrange(*SMALL_BYTES)))
    for number, size in enumerate(LARGE_FILES):
        with (source / f"large-{number}").open("wb") as large:
            for _ in range(size >> 20):
                large.write(chance.randbytes(1 << 20))
