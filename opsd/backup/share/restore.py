"""Bring a share back: a file, a directory or all of it, to a new place, and prove it.

Nothing that exists is overwritten unless the operator asks for the live path by name. The
consistent copies of SQLite databases take the place of the raw ones, because those were
copied while somebody may have written to them.

Limits: owners come back only when opsd runs as root.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

from opsd.backup.manifest import Manifest
from opsd.backup.proof import Comparison
from opsd.backup.share.engine import ADDED, Engine
from opsd.backup.share.guards import regular_files
from opsd.backup.share.livedata import SIDE_FILES, SQLITE
from opsd.clock import Deadline
from opsd.errors import PermanentError
from opsd.progress import Progress
from opsd.text import printable


def restore_share(
    engine: Engine,
    manifest: Manifest,
    *,
    target: Path,
    path: str = "",
    over_live: bool = False,
    sqlite_copies: bool = True,
    deadline: Deadline,
    progress: Progress,
) -> Comparison:
    """Restore from one backup and compare what was written with it.

    Args:
        engine: the one that made the backup.
        manifest: the backup.
        target: a new or empty directory; made if its parent exists.
        path: a file or directory in the share, without leading slash; empty for all. It keeps
            its last name: ``photos/2024`` becomes ``target/2024``.
        over_live: allow a target that has content, such as the live share itself. Files in
            the backup replace those there; others stay.
        sqlite_copies: put the consistent copies in the place of the raw databases.
        deadline: of everything.
        progress: told about bytes and files.

    Raises:
        PermanentError: no such path in the backup, or a target that must not be written.
        TransientError, DeadlineExceeded: it was not finished; the target is incomplete.
    """
    path = _normal(path)
    _require_new(target, manifest, over_live=over_live)
    engine.extract(manifest, path=path, target=target, deadline=deadline, progress=progress)
    compared = engine.compare(
        manifest,
        path=path,
        target=target,
        alone=not over_live,
        deadline=deadline,
        progress=progress,
    )
    databases = [one["path"] for one in manifest.source.get("sqlite", ()) if one.get("method")]
    if not databases:
        return compared
    if not sqlite_copies:
        note = f"{len(databases)} consistent SQLite copies are in {ADDED}/{SQLITE} of the backup"
        return _with(compared, notes=(note,))
    added = _put_copies(
        engine, manifest, path=path, target=target, deadline=deadline, progress=progress
    )
    return _with(compared, differences=added.differences, notes=added.notes)


def _normal(path: str) -> str:
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise PermanentError(f"restore {printable(path)}: the path must stay inside the share")
    return "/".join(parts)


def _require_new(target: Path, manifest: Manifest, *, over_live: bool) -> None:
    live = Path(str(manifest.source.get("path", "/")))
    inside_live = live == target.resolve() or live in target.resolve().parents
    if inside_live and not over_live:
        raise PermanentError(
            f"restore to {target}: that is the live share; restore to a new place and move it, "
            "or ask for the live path explicitly"
        )
    try:
        target.mkdir(mode=0o700, exist_ok=True)
    except OSError as exc:
        raise PermanentError(f"restore to {target}: {exc.strerror}") from exc
    if not over_live and any(target.iterdir()):
        raise PermanentError(f"restore to {target}: it is not empty; name a new directory")


def _put_copies(
    engine: Engine,
    manifest: Manifest,
    *,
    path: str,
    target: Path,
    deadline: Deadline,
    progress: Progress,
) -> Comparison:
    """Fetch the copies beside the restored files, compare them, and move them into place."""
    place = target / f"{ADDED}-restore"
    place.mkdir(mode=0o700)
    try:
        engine.extract(manifest, path=ADDED, target=place, deadline=deadline, progress=progress)
        compared = engine.compare(
            manifest, path=ADDED, target=place, alone=True, deadline=deadline, progress=progress
        )
        replaced = list(_move(place / ADDED / SQLITE, path=path, target=target))
    finally:
        rmtree(place)
    notes = (f"consistent copy in place: {printable(name)}" for name in replaced)
    return Comparison(
        unit="files",
        compared=compared.compared,
        differences=compared.differences,
        notes=tuple(notes),
    )


def _move(copies: Path, *, path: str, target: Path) -> Iterator[str]:
    parent = path.rpartition("/")[0]
    for raw, _ in list(regular_files(copies)):
        name = os.fsdecode(raw)
        if path and name != path and not name.startswith(f"{path}/"):
            continue
        final = target / os.path.relpath(name, parent or ".")
        final.parent.mkdir(parents=True, exist_ok=True)
        (copies / name).replace(final)
        for suffix in SIDE_FILES:
            with contextlib.suppress(FileNotFoundError):
                final.with_name(final.name + suffix).unlink()
        yield name


def _with(
    compared: Comparison, *, differences: tuple[str, ...] = (), notes: tuple[str, ...] = ()
) -> Comparison:
    return replace(
        compared,
        differences=(*compared.differences, *differences),
        notes=(*compared.notes, *notes),
    )
