"""Load config.toml, or say everything that is wrong with it at once, each with its line.

What the file points to (secrets, directories, servers) is not looked at here: `opsd check`
does that. So a file loads on a laptop that has neither the keys nor the disks.
"""

from __future__ import annotations

import functools
import json
import re
import tomllib
import zoneinfo
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from opsd.config import AlertTarget, Table
from opsd.configfile import wording
from opsd.configfile.places import Place, lines
from opsd.configfile.schema import Document, RepositoryTable, configured, document_model
from opsd.configfile.tables import PingKind
from opsd.errors import ConfigError
from opsd.job import AnyJob
from opsd.secrets import Secret
from opsd.text import printable

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_SYNTAX_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_TWICE = re.compile(r"\(('.*?'),?\)")
_SYNTAX_HINTS = {
    "Illegal character": "the closing quote is missing",
    "Invalid value": "text must stand in quotes",
    "Cannot overwrite a value": "this key stands twice; keep one",
    "Cannot declare": "this table stands twice; keep one",
    "Invalid statement": "expected KEY = VALUE, [TABLE] or # COMMENT",
    "Expected '=' after a key": "write KEY = VALUE",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEntry:
    """A job that has a table in the file."""

    job: AnyJob
    settings: Table  #: an instance of `job.settings`
    schedule: str  #: a valid cron expression
    timeout: timedelta
    enabled: bool  #: false: known, but never due
    catch_up: timedelta | None = None  #: how late a run is still worth it; None: until the next
    jitter: timedelta = timedelta(0)  #: a run starts up to this much later
    retries: int = 0  #: tries after the first
    ping: Secret | None = None  #: URL to call when a run starts and ends
    ping_kind: PingKind = "healthchecks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A checked configuration."""

    path: Path
    state_dir: Path
    timezone: zoneinfo.ZoneInfo
    log_level: str
    repositories: Mapping[str, RepositoryTable]
    targets: tuple[AlertTarget, ...]
    jobs: Mapping[str, JobEntry]  #: by name, in the order of the registry
    document: Document  #: all tables as they were checked, to show them


def load(path: Path, jobs: Sequence[AnyJob]) -> Config:
    """Read and check a file.

    Raises:
        ConfigError: every problem on a line of its own,
            ``config.toml:17: jobs.x.port: what is wrong; what to do``.
    """
    text = _read(path)
    raw = _parse(text, path)
    model = document_model(jobs)
    try:
        # Through JSON, because only there a strict check takes a list for a tuple.
        document = model.model_validate_json(
            json.dumps(raw, default=lambda date: {wording.DATE: str(date)}),
            strict=True,
            context={"repositories": _names(raw.get("repositories"))},
        )
    except ValidationError as exc:
        found = exc.errors(include_url=False)
    else:
        return _config(document, path=path, jobs=jobs)
    # Not while the library's error is handled: a traceback of ours would repeat its values.
    problems = sorted(set(_problems(found, raw=raw, text=text, model=model)))
    raise ConfigError("\n".join(f"{path}:{line}: {problem}" for line, problem in problems))


def json_schema(jobs: Sequence[AnyJob]) -> dict[str, Any]:
    """What an editor needs to complete and check the file."""
    return {"$schema": DIALECT, **document_model(jobs).model_json_schema(by_alias=True)}


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        hint = "name the file with --config or OPSD_CONFIG, or copy config.toml.example"
        raise ConfigError(f"{path}: no such file; {hint}") from None
    except OSError as exc:
        hint = "opsd must be able to read it"
        raise ConfigError(f"{path}: cannot be read: {exc.strerror}; {hint}") from exc
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        byte = f"0x{content[exc.start]:02x}"
        hint = "save the file as UTF-8"
        raise ConfigError(f"{path}:{line}: not UTF-8 (byte {byte}); {hint}") from None
    if not text.strip():
        raise ConfigError(f"{path}: the file is empty; begin with config.toml.example")
    return text


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        told = str(exc)
    except RecursionError:
        raise ConfigError(f"{path}: brackets are nested too deeply") from None
    place = _SYNTAX_PLACE.search(told)
    what = _TWICE.sub(_dotted, printable(_SYNTAX_PLACE.sub("", told)))
    line = place[1] if place and place[1] else str(len(text.splitlines()))
    column = f" at column {place[2]}" if place and place[2] else ""
    hint = next((hint for start, hint in _SYNTAX_HINTS.items() if what.startswith(start)), "")
    raise ConfigError(
        f"{path}:{line}: not TOML: {what[:1].lower()}{what[1:]}{column}"
        + (f"; {hint}" * bool(hint))
    )


def _dotted(match: re.Match[str]) -> str:
    """``('a', 'b')`` as ``[a.b]``."""
    return "[" + match[1].replace("', '", ".").strip("'") + "]"


def _problems(
    found: Iterable[ErrorDetails], *, raw: dict[str, Any], text: str, model: type[Document]
) -> Iterator[tuple[int, str]]:
    line_of = lines(text)
    schema = _schema(model)
    for error in found:
        if wording.is_echo(error):
            continue
        place = wording.placed(error, raw)
        holder = _subschema(schema, place[:-1], raw)
        told = f"{wording.place_text(place)}: {wording.message(error, holder)}"
        yield _line(place, line_of), told


@functools.cache
def _schema(model: type[Document]) -> dict[str, Any]:
    return model.model_json_schema(by_alias=True)


def _line(place: Place, line_of: Mapping[Place, int]) -> int:
    """The line of the key or, if it is missing, of the table in which it belongs."""
    while place and place not in line_of:
        place = place[:-1]
    return line_of.get(place, 1)


def _subschema(schema: dict[str, Any], place: Place, raw: Any) -> dict[str, Any]:
    """The part of the schema that describes the table at `place`; empty if there is none."""
    here = schema
    for part in place:
        raw = raw[part]
        if isinstance(part, int):
            here = here.get("items", {})
        else:
            here = here.get("properties", {}).get(part) or _any_key(here)
        here = _resolved(here, raw, schema["$defs"])
    return here


def _any_key(node: dict[str, Any]) -> dict[str, Any]:
    """What is said of the keys of a table whose names are free."""
    return next(iter(node.get("patternProperties", {}).values()), {})


def _resolved(node: dict[str, Any], raw: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if "discriminator" in node:
        tag = raw.get(node["discriminator"]["propertyName"]) if isinstance(raw, dict) else None
        node = {"$ref": node["discriminator"]["mapping"].get(str(tag), "")}
    reference = str(node.get("$ref", ""))
    return dict(definitions.get(reference.removeprefix("#/$defs/"), node))


def _names(tables: object) -> tuple[str, ...]:
    return tuple(tables) if isinstance(tables, dict) else ()


def _zone(name: str, *, path: Path) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except zoneinfo.ZoneInfoNotFoundError:  # the default, which nobody wrote, was not checked
        hint = "no time zones are installed; apt-get install tzdata"
        raise ConfigError(f"{path}: opsd.timezone: {name}: {hint}") from None


def _config(document: Document, *, path: Path, jobs: Sequence[AnyJob]) -> Config:
    entries = {}
    for job in jobs:
        table = configured(document, job)
        if table is not None:
            entries[job.name] = JobEntry(
                job=job,
                settings=table,
                schedule=table.schedule,
                timeout=table.timeout,
                enabled=table.enabled,
                catch_up=table.catch_up,
                jitter=table.jitter,
                retries=table.retries,
                ping=table.ping,
                ping_kind=table.ping_kind,
            )
    return Config(
        path=path,
        state_dir=document.opsd.state_dir,
        timezone=_zone(document.opsd.timezone, path=path),
        log_level=document.opsd.log_level,
        repositories=document.repositories,
        targets=document.alerts.targets,
        jobs=entries,
        document=document,
    )
