"""Small files that opsd keeps about machines, for the time in which the cluster is silent."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from opsd.errors import ConfigError


def read(path: Path, *, what: str) -> str:
    """The text of a file; empty when there is none.

    Raises:
        ConfigError: it cannot be read; the text begins with `what`.
    """
    try:
        return path.read_text(errors="surrogateescape")
    except FileNotFoundError:
        return ""
    except OSError as exc:
        raise ConfigError(f"{what}: read {path}: {exc.strerror}") from exc


def write(path: Path, text: str, *, what: str) -> None:
    """Replace a file: all of it or nothing, also when the power fails.

    Raises:
        ConfigError: it cannot be written; the text begins with `what`.
    """
    temporary = ""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "w", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        _sync(path.parent)
    except OSError as exc:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise ConfigError(f"{what}: write {path}: {exc.strerror}") from exc


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
