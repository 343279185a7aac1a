"""A backup of an hour must not look like a hang: one line per step, on the terminal.

The lines stand on stderr while steps run and vanish after them. When stderr is not a
terminal nothing is drawn.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from opsd.cli.render import count_text, size_text
from opsd.progress import NoProgress, Progress, Unit
from opsd.text import printable, shortened

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import Task, TaskID
    from rich.text import Text

REDRAWS_PER_S = 8
LONGEST_STEP = 38  # columns: leaves room for the bar on a terminal of 80


def draws() -> bool:
    """Whether progress is drawn in this call."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextlib.contextmanager
def shown() -> Iterator[Progress]:
    """Progress on the terminal, if stderr is one, else none."""
    if not draws():
        yield NoProgress()
        return
    with _bars() as bars:
        yield TerminalProgress(bars)


class TerminalProgress:
    """Fulfils `opsd.progress.Progress`."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._lock = threading.Lock()
        self._tasks: dict[str, TaskID] = {}

    def update(
        self, step: str, *, done: int | None = None, total: int | None = None, unit: Unit = "bytes"
    ) -> None:
        """See `Progress.update`."""
        with self._lock:
            task = self._tasks.get(step)
            if task is None:
                task = self._tasks[step] = self._bars.add_task(
                    shortened(printable(step), LONGEST_STEP), total=None, unit=unit
                )
        self._bars.update(task, completed=done, total=total, unit=unit)

    def finish(self, step: str) -> None:
        """See `Progress.finish`."""
        with self._lock:
            task = self._tasks.pop(step, None)
        if task is not None:
            self._bars.remove_task(task)


def _bars() -> Bars:
    from rich import progress  # noqa: PLC0415 - only when drawing
    from rich.console import Console  # noqa: PLC0415 - only when drawing
    from rich.text import Text  # noqa: PLC0415 - only when drawing

    class Amount(progress.ProgressColumn):
        """How much is done, of how much, how fast."""

        def render(self, task: Task) -> Text:
            return Text(_amount(task), style="dim")

    return progress.Progress(
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=16),
        Amount(),
        progress.TimeElapsedColumn(),
        console=Console(stderr=True, highlight=False),
        transient=True,
        refresh_per_second=REDRAWS_PER_S,
    )


def _amount(task: Task) -> str:
    if not task.completed:
        return ""
    in_bytes = task.fields["unit"] == "bytes"
    done = _count(task.completed, in_bytes=in_bytes)
    if task.total:
        done = f"{done} of {_count(task.total, in_bytes=in_bytes)}"
    elif not in_bytes:
        done = count_text(int(task.completed), str(task.fields["unit"]).removesuffix("s"))
    rate = f", {size_text(int(task.speed))}/s" if in_bytes and task.speed else ""
    return done + rate


def _count(amount: float, *, in_bytes: bool) -> str:
    return size_text(int(amount)) if in_bytes else f"{int(amount):,}"
