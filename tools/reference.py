"""Write what is derived from the code: the example configuration, its schema, the reference.

`python -m tools.reference` rewrites config.toml.example, config.schema.json and the parts
of docs/configuration.md and docs/commands.md between their markers. A test holds them equal
to what this produces, so no key and no option stays undocumented.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from jobs import JOBS
from opsd.cli import opsd
from opsd.cli.calling import common_options
from opsd.config import format_duration, format_size
from opsd.configfile import json_schema
from opsd.configfile.schema import document_model
from opsd.configfile.showing import toml_value

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "config.schema.json"
EXAMPLE = ROOT / "config.toml.example"
CONFIGURATION = ROOT / "docs/configuration.md"
COMMANDS = ROOT / "docs/commands.md"
WIDTH = 96  # columns of the example

BEGIN, END = "<!-- reference: begin -->", "<!-- reference: end -->"

# The free names of the example, by the table's class.
NAMES = {"DirectoryTable": "usb", "S3Table": "offsite"}
# Example values of keys that must be given, where the key's own examples do not fit.
VALUES: Mapping[str, Any] = {
    "jobs.node-remedy.fences.command": ["fence_ipmilan"],
    "jobs.postgres-backup.servers.name": "main",
    "jobs.nfs-backup.shares.name": "nfs",
    "jobs.nfs-backup.shares.password": "file:/run/secrets/restic-password",
}
_PATTERNS = {"^(\\d+)(s|": "duration", "^(\\d+(?:": "size", "^(env:": "secret"}
_NUMBERS = {"integer": "number", "number": "number", "boolean": "true or false"}
EXAMPLE_HEAD = """\
#:schema ./config.schema.json
# The configuration of opsd. Every key stands here with its default; where there is none, with
# an example. A job without a table is not run. Secrets are named, never written here:
# "env:NAME" or "file:/path". Check the result with `opsd check`.
"""


@dataclass(frozen=True, slots=True)
class Section:
    """One table of the configuration."""

    path: str  #: ``jobs.nfs-backup.shares``
    header: str  #: ``[[jobs.nfs-backup.shares]]``
    model: type[BaseModel]

    @property
    def meaning(self) -> str:
        """What the table is for, in one sentence."""
        text = " ".join((self.model.__doc__ or "").split("\n\n")[0].split()).rstrip(".")
        return text[:1].upper() + text[1:]

    def plain_keys(self) -> Iterator[tuple[str, FieldInfo]]:
        """Its keys that hold no tables."""
        for name, field in self.model.model_fields.items():
            if not _models(field.annotation):
                yield field.alias or name, field


def sections() -> tuple[Section, ...]:
    """All tables, in the order of the documentation."""
    return tuple(_sections(document_model(JOBS), path=""))


def _sections(model: type[BaseModel], *, path: str) -> Iterator[Section]:
    for name, field in model.model_fields.items():
        key = f"{path}.{field.alias or name}".lstrip(".")
        for nested in _models(field.annotation):
            here = key
            is_list = get_origin(_plain(field.annotation)) is tuple
            if get_origin(_plain(field.annotation)) is dict:
                here = f"{key}.{NAMES[nested.__name__]}"
            section = Section(here, f"[[{here}]]" if is_list else f"[{here}]", nested)
            if any(section.plain_keys()):
                yield section
            yield from _sections(nested, path=here)


def example() -> str:
    """The text of config.toml.example."""
    parts = [EXAMPLE_HEAD]
    for section in sections():
        parts.append(f"\n# {section.meaning}.\n{section.header}\n")
        for key, field in section.plain_keys():
            parts.append(_wrapped(_described(field)))
            parts.append(_assignment(section, key, field))
    return "".join(parts)


def _assignment(section: Section, key: str, field: FieldInfo) -> str:
    value = _default(field)
    if value is not None:
        return f"{key} = {toml_value(value)}\n"
    path = f"{re.sub(r'^repositories[.][^.]+', 'repositories', section.path)}.{key}"
    value = VALUES.get(path, _an_example(field))
    if value is None:
        raise LookupError(f"{section.path}.{key}: give its field examples=[...]")
    is_given = field.is_required() or path in VALUES
    return f"{'' if is_given else '# '}{key} = {toml_value(value)}\n"


def _an_example(field: FieldInfo) -> Any:
    if field.examples:
        return field.examples[0]
    choices = get_args(_plain(field.annotation))
    return choices[0] if choices and isinstance(choices[0], str) else None


def schema() -> str:
    """The text of config.schema.json."""
    return json.dumps(json_schema(JOBS), indent=2) + "\n"


def configuration() -> str:
    """The reference part of docs/configuration.md."""
    return "\n".join(_documented(section) for section in sections())


def _documented(section: Section) -> str:
    kind = section.model.__name__.removesuffix("Table").lower()
    header = f"### `{section.header}`"
    if section.path.startswith("repositories."):
        header = f'### `[repositories.NAME]` with `type = "{kind}"`'
    lines = [header, f"{section.meaning}.", ""]
    lines += ["| key | kind | default | meaning |", "|---|---|---|---|"]
    properties = section.model.model_json_schema(by_alias=True)["properties"]
    for key, field in section.plain_keys():
        default = _default(field)
        shown = f"`{toml_value(default)}`" if default is not None else "none"
        shown = "**must be given**" if field.is_required() else shown
        row = (f"`{key}`", _kind(properties[key]), shown, _described(field))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines) + "\n"


def _kind(schema: Mapping[str, Any]) -> str:
    """What a value looks like, from its JSON schema."""
    if "anyOf" in schema:
        return _kind(next(one for one in schema["anyOf"] if one.get("type") != "null"))
    if "const" in schema or "enum" in schema:
        return " or ".join(f'`"{one}"`' for one in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "array":
        return f"list of {_kind(schema['items'])}"
    if schema["type"] == "object":
        return f"table of {_kind(schema['additionalProperties'])}s"
    return _kind_of_text(schema) or _NUMBERS[schema["type"]] + _range(schema)


def _kind_of_text(schema: Mapping[str, Any]) -> str:
    if schema["type"] != "string":
        return ""
    pattern = str(schema.get("pattern", ""))
    kinds = (kind for start, kind in _PATTERNS.items() if pattern.startswith(start))
    return next(kinds, "path" if schema.get("format") == "path" else "text")


def _range(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None:
        return ""
    return f", {low} to {high}" if high is not None else f", {low} or more"


def commands() -> str:
    """The reference part of docs/commands.md."""
    common: set[str | None] = {"help", "version", *(one.name for one in common_options())}
    context = click.Context(opsd, info_name="opsd")
    return "\n".join(_document_command(opsd, context, common))


def _document_command(
    command: click.Command, context: click.Context, common: set[str | None]
) -> Iterator[str]:
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            nested = command.get_command(context, name)
            if nested is None or nested.hidden:
                continue
            inner = click.Context(nested, info_name=name, parent=context)
            yield from _document_command(nested, inner, common)
        return
    arguments = " ".join(
        param.make_metavar(context)
        for param in command.params
        if isinstance(param, click.Argument)
    )
    yield f"### `{context.command_path} {arguments}".rstrip() + "`"
    yield from (" ".join(part.split()) + "\n" for part in (command.help or "").split("\n\n"))
    options = [
        param
        for param in command.params
        if isinstance(param, click.Option) and not param.hidden and param.name not in common
    ]
    if options:
        yield "| option | meaning |\n|---|---|"
        for option in options:
            names, text = option.get_help_record(context) or ("", "")
            yield f"| `{names.replace('|', ' or ')}` | {' '.join(text.split())} |".replace(
                "\b", ""
            )
        yield ""


def _models(annotation: Any) -> tuple[type[BaseModel], ...]:
    """The tables that a key can hold."""
    annotation = _plain(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    return tuple(model for inner in get_args(annotation) for model in _models(inner))


def _plain(annotation: Any) -> Any:
    """The type without what is said about it."""
    return annotation.__origin__ if hasattr(annotation, "__metadata__") else annotation


def _default(field: FieldInfo) -> Any:
    """The default as it stands in TOML; None when there is none."""
    if field.is_required():
        return None
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [str(item) if isinstance(item, Path) else item for item in value]
    for serializer, kind in ((format_duration, "format_duration"), (format_size, "format_size")):
        if kind in repr(field.metadata):
            return serializer(value)
    return value


def _described(field: FieldInfo) -> str:
    if field.description is None:
        return "which kind it is"
    return field.description


def _wrapped(text: str) -> str:
    lines = textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")
    return "\n".join(lines) + "\n"


def replaced(document: str, reference: str) -> str:
    """A documentation page with its reference part renewed."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{reference.strip()}\n{END}{after}"


def main() -> None:
    """Rewrite the files."""
    SCHEMA.write_text(schema())
    EXAMPLE.write_text(example())
    for page, reference in ((CONFIGURATION, configuration()), (COMMANDS, commands())):
        page.write_text(replaced(page.read_text(), reference))


if __name__ == "__main__":
    main()
