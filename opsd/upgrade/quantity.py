"""Quantities of the Kubernetes API as numbers: ``250m`` is 0.25, ``1Gi`` is 1073741824.

Source: kubernetes.io, apimachinery/pkg/api/resource.
"""

from __future__ import annotations

import re
from decimal import Decimal

_QUANTITY = re.compile(r"([+-]?[0-9.]+)(?:([eE][+-]?\d+)|([KMGTPE]i|[numkMGTPE]))?")
_UNITS = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(1 << 10),
    "Mi": Decimal(1 << 20),
    "Gi": Decimal(1 << 30),
    "Ti": Decimal(1 << 40),
    "Pi": Decimal(1 << 50),
    "Ei": Decimal(1 << 60),
}


def number(text: str) -> float:
    """The value.

    Raises:
        ValueError: it is no quantity.
    """
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[1].count(".") > 1:
        raise ValueError(f"{text!r} is no quantity")
    value = Decimal(match[1] + (match[2] or ""))
    return float(value * _UNITS[match[3]] if match[3] in _UNITS else value)
