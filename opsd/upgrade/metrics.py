"""Pick a few lines out of the metrics of a program: text as Prometheus reads it. Pure.

The API server prints megabytes of it; what is not asked for is never parsed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

_SAMPLE = re.compile(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*")
_LABEL = re.compile(r'([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"')
_ESCAPED = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One line."""

    name: str
    labels: Mapping[str, str]
    value: float


def samples(lines: Iterable[str], names: Collection[str]) -> Iterator[Sample]:
    """Those of these names; lines that are none are passed over."""
    for line in lines:
        name = line[: min(line.find("{") % 4096, line.find(" ") % 4096)]
        if name not in names:
            continue
        match = _SAMPLE.fullmatch(line.rstrip("\n"))
        if match is None:
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        yield Sample(name=match[1], labels=_labels(match[2] or ""), value=value)


def _labels(text: str) -> dict[str, str]:
    return {
        name: re.sub(r"\\.", lambda found: _ESCAPED.get(found[0], found[0]), value)
        for name, value in _LABEL.findall(text)
    }
