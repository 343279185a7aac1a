"""`opsd init`: the first configuration, written from what can be seen instead of by hand.

It asks nothing. With a cluster it lists workloads, volumes and nodes; it reads no Secret and
changes nothing but the one file, which it never overwrites by itself.
"""

from __future__ import annotations

import os
import sys
import zoneinfo
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from opsd.cli.calling import CONFIG_PLACES, CONFIG_VARIABLE, Command, Exit
from opsd.cli.firstconfig import Seen, text_of
from opsd.cli.render import print_json
from opsd.clock import Deadline, SystemClock
from opsd.errors import ConfigError, OpsdError
from opsd.secrets import describe

LOOK_S = 60.0  # at the cluster
STDOUT = "-"
_SOCKETS = (Path("/var/run/postgresql"), Path("/tmp"))  # noqa: S108 - where servers put them
_LOCALTIME = Path("/etc/localtime")
_ZONES = "zoneinfo/"


class InitCommand(Command):
    """Takes the common options, and a place for ``-o``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for option in self.params:
            if isinstance(option, click.Option) and option.name == "output":
                option.type = click.STRING
                option.metavar = "PATH"
                option.help = (
                    "Where to write; - prints it, json prints one JSON object.  "
                    "[default: that of --config]"
                )


@click.command(cls=InitCommand)
@click.option("--force", is_flag=True, help="Overwrite the file if it is there.")
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path),
    help="The cluster to look at.  [default: the one opsd is in, $KUBECONFIG, ~/.kube/config]",
)
@click.option("--context", default="", metavar="NAME", help="A context of the kubeconfig file.")
def init(*, force: bool, kubeconfig: Path | None, context: str) -> int:
    """Write a first configuration from what is there: databases, NFS shares, nodes.

    Works without a cluster too. Reads no Secret, and changes nothing but the file. -o PATH
    writes elsewhere, -o - prints. Exits with 1 when not all of the cluster could be seen.
    """
    wanted = click.get_current_context().meta.get("output", "")
    path = _path(wanted)
    is_written = wanted not in (STDOUT, "json")
    if is_written and path.exists() and not force:
        raise ConfigError(f"{path} is there already; --force overwrites it, -o - prints instead")
    seen = look(kubeconfig=kubeconfig, context=context)
    text = text_of(seen)
    if wanted == "json":
        print_json({"config": text, "error": seen.site_error})
    elif wanted == STDOUT:
        sys.stdout.write(text)
    else:
        write(path, text, force=force)
        click.echo(f"{path} is written. Read it, then: opsd check")
    if seen.site_error:
        click.echo(f"not complete: {seen.site_error}", err=True)
        return Exit.FAILED
    return Exit.COMPLETED


def look(*, kubeconfig: Path | None = None, context: str = "") -> Seen:
    """Look at this machine and its cluster.

    Raises:
        ConfigError: the kubeconfig file that was named cannot be used.
    """
    from opsd.clients.kube.access import find_cluster, runs_in_cluster  # noqa: PLC0415 - lazily
    from opsd.clients.kube.client import Kube  # noqa: PLC0415 - likewise
    from opsd.clients.kube.transport import Transport  # noqa: PLC0415 - likewise
    from opsd.cluster.site_reading import read_site  # noqa: PLC0415 - likewise

    zone, zone_source = _timezone()
    here = Seen(timezone=zone, timezone_source=zone_source, mounts=_mount_points())
    try:
        cluster = find_cluster(kubeconfig=kubeconfig, context=context)
    except ConfigError:
        if kubeconfig or context:
            raise
        return replace(here, socket_dir=_socket_dir())
    kube = Kube(Transport(lambda: cluster), deadline=Deadline.after(LOOK_S, SystemClock()))
    try:
        site, errors = read_site(kube)
    except OpsdError as exc:
        return replace(here, site_error=describe(exc), socket_dir=_socket_dir())
    is_outside = not runs_in_cluster() or kubeconfig is not None
    return replace(
        here,
        site=site,
        site_error="; ".join(str(one) for one in errors),
        kubeconfig=_kubeconfig(kubeconfig) if is_outside else "",
        context=context,
    )


def write(path: Path, text: str, *, force: bool) -> None:
    """Write the file whole or not at all.

    Raises:
        ConfigError: it cannot be written, or is there and `force` does not hold.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if force:
            unfinished.replace(path)
        else:
            os.link(unfinished, path)  # other than a rename it refuses what is there
    except OSError as exc:
        raise ConfigError(f"write {path}: {exc.strerror}") from exc
    finally:
        unfinished.unlink(missing_ok=True)


def _path(wanted: str) -> Path:
    if wanted not in ("", STDOUT, "json", "text"):
        return Path(wanted)
    named = click.get_current_context().meta.get("config") or os.environ.get(CONFIG_VARIABLE)
    return Path(named) if named else CONFIG_PLACES[0]


def _kubeconfig(named: Path | None) -> str:
    """One file, absolute; the first of several."""
    several = os.environ.get("KUBECONFIG") or "~/.kube/config"
    first = named or Path(next(one for one in several.split(":") if one))
    return str(first.expanduser().absolute())


def _timezone() -> tuple[str, str]:
    """This machine's zone and who says so."""
    own = os.environ.get("TZ", "").removeprefix(":")
    if own in zoneinfo.available_timezones():
        return own, "TZ of this machine"
    linked = os.path.realpath(_LOCALTIME)
    name = linked.partition(_ZONES)[2]
    if name in zoneinfo.available_timezones():
        return name, f"{_LOCALTIME} of this machine"
    return "UTC", ""


def _mount_points() -> Mapping[tuple[str, str], str]:
    """Where NFS exports are mounted on this machine, by server and path."""
    from opsd.clients.mounts import nfs_mounts  # noqa: PLC0415 - for this command only

    return {
        (source.rpartition(":/")[0], f"/{source.rpartition(':/')[2]}"): point
        for point, source in nfs_mounts().items()
    }


def _socket_dir() -> str:
    return next((str(one) for one in _SOCKETS if (one / ".s.PGSQL.5432").exists()), "")
