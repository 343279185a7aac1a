"""Where the real parts lie, and what happens when one is missing.

`make setup` puts them into a cache outside the tree. On a developer's machine a missing part
skips the tests that need it, loudly; in CI (``CI=true``) it fails them, because a test that
silently stopped running proves nothing.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

CACHE = Path(
    os.environ.get("OPSD_CACHE")
    or ("/var/cache/opsd" if os.geteuid() == 0 else Path.home() / ".cache/opsd")
)


def missing(part: str, remedy: str = "make setup", *, required: bool = True) -> NoReturn:
    """Skip the running test, or fail it in CI if `required`, because a real part is not there."""
    reason = f"{part} is not installed: run `{remedy}`"
    if required and os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def program(name: str) -> Path:
    """The path of an installed program; PATH includes the cache and the sbin directories."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin")
    return Path(found) if found else missing(name)


def put_cache_on_path() -> None:
    """Let this process and its children find the programs that the set-up brought."""
    ours = (CACHE / "bin", Path(sys.executable).parent)
    os.environ["PATH"] = ":".join([*map(str, ours), os.environ["PATH"]])
