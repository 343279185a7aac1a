"""Say what is wrong with a configuration so that its owner can mend it without a manual.

Limits: values are repeated only where a fixed set of words is expected, and only when they
look like one; everything else may be a secret that stands in the wrong place.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from opsd.configfile.places import Place
from opsd.text import printable

SHOWN_NAMES = 12  # known keys listed when none of them is close
LONGEST_WORD = 40  # characters
_WORD = re.compile(r"[A-Za-z][A-Za-z_/ .-]*\d?")  # no password, or one that is a word itself
DATE = "a date"  # stands for a date of TOML, which no key takes, in what is checked

_JSON_KINDS = {
    "str": "text",
    "int": "a number",
    "float": "a number with a fraction",
    "list": "a list",
    "dict": "a table",
}
_EXPECTED = {
    "string": "text in quotes",
    "int": "a whole number without quotes",
    "float": "a number without quotes",
    "bool": "true or false without quotes",
    "list": "a list in [ ]",
    "tuple": "a list in [ ]",
    "dict": "a table",
    "model": "a table",
    "model_attributes": "a table",
    "path": "a path in quotes",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def place_text(place: Place) -> str:
    """``jobs.postgres-backup.servers[0].port``."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return printable(text.removeprefix("."))


def placed(error: ErrorDetails, document: Mapping[str, Any]) -> Place:
    """The key that an error is about, without the parts that only the checker knows."""
    place: Place = ()
    here: Any = document
    for part in error["loc"]:
        if isinstance(here, dict) and part in here:
            here = here[str(part)]
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
        elif part != error["loc"][-1] or error["type"] != "missing":
            continue  # the name of a union's branch
        place = (*place, part)
    if error["type"].startswith("union_tag"):
        return (*place, _tag(error))
    at: Place = error.get("ctx", {}).get("at", ())
    return (*place, *at)


def is_echo(error: ErrorDetails) -> bool:
    """Whether an error only repeats that entries of a list are wrong."""
    return error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]


def message(error: ErrorDetails, schema: Mapping[str, Any]) -> str:
    """One line: what is wrong; what to do.

    Args:
        error: as pydantic reports it.
        schema: the JSON schema of the table that holds the key; may be empty.
    """
    kind = error["type"]
    known = _WORDED.get(kind)
    if known is not None:
        return known(error, schema)
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"must be {words} {error['ctx'][key]}"
    expected = _EXPECTED.get(kind.rsplit("_", 1)[0]) or _EXPECTED.get(kind.split("_")[0])
    if expected is not None and kind.endswith(("_type", "_parsing", "_from_float")):
        return f"expected {expected}, got {_kind_of(error['input'])}"
    return error["msg"][:1].lower() + error["msg"][1:]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean "port"?``, or the known words when none is close."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    shown = ", ".join(names[:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")
    return f"known: {shown}" if shown else "none is known"


def _missing(error: ErrorDetails, schema: Mapping[str, Any]) -> str:
    key = str(error["loc"][-1])
    described = schema.get("properties", {}).get(key, {})
    example = next(iter(described.get("examples", ())), None)
    meaning = f" ({described['description']})" if "description" in described else ""
    if example is not None:
        return f"missing{meaning}; add {key} = {json.dumps(example)}"
    return f"missing{meaning}; add it to the table"


def _unknown_key(error: ErrorDetails, schema: Mapping[str, Any]) -> str:
    hint = did_you_mean(str(error["loc"][-1]), schema.get("properties", {}))
    return f"{'no such job' if error['loc'][:-1] == ('jobs',) else 'unknown key'}; {hint}"


def _one_of(error: ErrorDetails, _schema: Mapping[str, Any]) -> str:
    expected = error["ctx"]["expected"].replace("'", '"')
    return f"expected {expected}, got {_quoted(error['input'])}"


def _wrong_tag(error: ErrorDetails, _schema: Mapping[str, Any]) -> str:
    expected = error["ctx"]["expected_tags"].replace("'", '"').replace(", ", " or ")
    return f"expected {expected}, got {_quoted(error['ctx']['tag'])}"


def _missing_tag(error: ErrorDetails, _schema: Mapping[str, Any]) -> str:
    return f'missing; add {_tag(error)} = "directory" or {_tag(error)} = "s3"'


def _unknown_repository(error: ErrorDetails, _schema: Mapping[str, Any]) -> str:
    known = error["ctx"]["known"]
    name = _quoted(error["input"])
    if not known:
        return f"there is no repository {name}; add a table [repositories.NAME]"
    return f"there is no repository {name}; {did_you_mean(str(error['input']), known)}"


def _unknown_timezone(error: ErrorDetails, _schema: Mapping[str, Any]) -> str:
    import zoneinfo  # noqa: PLC0415 - listing them reads hundreds of files

    name = str(error["ctx"]["name"])
    known = sorted(zoneinfo.available_timezones())
    if not known:
        return f"time zone {_quoted(name)}: none are installed; apt-get install tzdata"
    near = difflib.get_close_matches(name, known, n=1)
    hint = f'did you mean "{near[0]}"?' if near else 'use a name such as "Europe/Berlin" or "UTC"'
    return f"unknown time zone {_quoted(name)}; {hint}"


def _duplicate_name(error: ErrorDetails, _schema: Mapping[str, Any]) -> str:
    name, first = error["ctx"]["name"], error["ctx"]["first"]
    return f"the name {_quoted(name)} is already taken by entry {first + 1}; rename one of them"


def _value_error(error: ErrorDetails, _schema: Mapping[str, Any]) -> str:
    return error["msg"].removeprefix("Value error, ")


def _pattern(error: ErrorDetails, schema: Mapping[str, Any]) -> str:
    if error["loc"][-1] == "[key]":
        return "a name here consists of a-z, 0-9 and dashes; rename the table"
    described = schema.get("properties", {}).get(str(error["loc"][-1]), {})
    example = next(iter(described.get("examples", ())), None)
    hint = f', such as "{example}"' if example else ""
    return f"not of the expected form{hint}"


def _empty(_error: ErrorDetails, _schema: Mapping[str, Any]) -> str:
    return "must not be empty"


def _too_few(error: ErrorDetails, _schema: Mapping[str, Any]) -> str:
    least = error["ctx"]["min_length"]
    return f"needs at least {least} {'entry' if least == 1 else 'entries'}"


_WORDED: Mapping[str, Callable[[ErrorDetails, Mapping[str, Any]], str]] = {
    "missing": _missing,
    "extra_forbidden": _unknown_key,
    "literal_error": _one_of,
    "enum": _one_of,
    "union_tag_invalid": _wrong_tag,
    "union_tag_not_found": _missing_tag,
    "unknown_repository": _unknown_repository,
    "unknown_timezone": _unknown_timezone,
    "duplicate_name": _duplicate_name,
    "value_error": _value_error,
    "string_pattern_mismatch": _pattern,
    "string_too_short": _empty,
    "too_short": _too_few,
}


def _tag(error: ErrorDetails) -> str:
    return str(error["ctx"]["discriminator"]).strip("'")


def _kind_of(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict) and value.keys() == {DATE}:
        return DATE
    return _JSON_KINDS.get(type(value).__name__, "something else")


def _quoted(value: object) -> str:
    """A wrong word, if it is one."""
    if not isinstance(value, str):
        return _kind_of(value)
    if len(value) > LONGEST_WORD or not _WORD.fullmatch(value):
        return "something else"
    return f'"{value}"'
