"""Configuration in YAML as it lies on a machine, read as plain values.

Limits: one document; a text of more than a megabyte is refused before it is parsed.
"""

from __future__ import annotations

from typing import Any

import yaml

_MOST_CHARACTERS = 1 << 20

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def mapping(text: str) -> dict[str, Any]:
    """A document that is a mapping; an empty one is an empty mapping.

    Raises:
        ValueError: it is no YAML, or no mapping.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"{len(text)} characters are too many for a configuration")
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - the safe loader, in C
    except yaml.YAMLError as exc:
        raise ValueError(f"it is no YAML: {' '.join(str(exc).split())}") from exc
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError("it is no mapping of names to values")  # noqa: TRY004 - of the text
    return {str(name): entry for name, entry in value.items()}


def inner(value: object, name: str) -> dict[str, Any]:
    """The mapping below a name, empty where there is none or something else."""
    below = value.get(name) if isinstance(value, dict) else None
    return below if isinstance(below, dict) else {}
