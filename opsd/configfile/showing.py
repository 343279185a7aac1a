"""Write a checked configuration as TOML again, so that nobody has to guess what applies.

What the file did not say is marked as a default. Secrets stay references. The text loads
again and means the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tomlkit
from pydantic import BaseModel

from opsd.configfile.schema import Document

MARK = "  # default"


def as_toml(document: Document) -> str:
    """The whole configuration, one key per line, in the order of the documentation."""
    return "\n".join(_table(document, name="", is_default=False)).lstrip("\n") + "\n"


def _table(table: BaseModel, *, name: str, is_default: bool) -> Iterator[str]:
    """First the plain keys of a table, then its tables: TOML asks for this order."""
    nested: list[tuple[str, Any, bool]] = []
    plain = table.model_dump(mode="json", by_alias=True, exclude_none=True)
    for field, described in type(table).model_fields.items():
        key = described.alias or field
        value = getattr(table, field)
        by_default = is_default or field not in table.model_fields_set
        if value is None:
            continue
        if _holds_tables(value):
            nested.append((key, value, by_default))
        else:
            yield f"{_key(key)} = {toml_value(plain[key])}{MARK if by_default else ''}"
    for key, value, by_default in nested:
        yield from _nested(value, name=f"{name}.{_key(key)}".lstrip("."), is_default=by_default)


def _nested(value: Any, *, name: str, is_default: bool) -> Iterator[str]:
    if isinstance(value, BaseModel):
        if any(not _holds_tables(item) for _, item in value):
            yield f"\n[{name}]"
        yield from _table(value, name=name, is_default=is_default)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _nested(item, name=f"{name}.{_key(key)}", is_default=is_default)
    else:
        for item in value:
            yield f"\n[[{name}]]"
            yield from _table(item, name=name, is_default=is_default)


def _holds_tables(value: Any) -> bool:
    if isinstance(value, dict):
        value = tuple(value.values())
    entries = value if isinstance(value, tuple | list) else (value,)
    return bool(entries) and all(isinstance(entry, BaseModel) for entry in entries)


def _key(key: str) -> str:
    return tomlkit.key(key).as_string()


def toml_value(value: Any) -> str:
    """A value in one line, a table too."""
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(key)} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return str(tomlkit.item(value).as_string())
