"""The text of a first configuration: as complete as what was seen allows, every guess explained.

Pure. What comes out always loads; what nobody can know (where backups may go, whom to tell) is
a default that works or stands there as a comment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from opsd.cluster.site import Export, Site
from opsd.text import printable

MOST_NAMED = 50  # databases and nodes that comments list


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What this machine and its cluster look like."""

    timezone: str = "UTC"
    timezone_source: str = ""  #: empty: nobody knows
    site: Site | None = None  #: None: no cluster
    site_error: str = ""  #: why it could not be seen, wholly or in part
    kubeconfig: str = ""  #: empty: opsd is in the cluster, or there is none
    context: str = ""
    mounts: Mapping[tuple[str, str], str] = field(default_factory=dict)  #: (server, path): where
    socket_dir: str = ""  #: of a PostgreSQL on this machine


def text_of(seen: Seen) -> str:
    """The configuration."""
    parts = [_opsd(seen), _repository(), _kubernetes(seen), _alerts(), _postgres(seen)]
    return "\n".join("\n".join(part) for part in (*parts, _shares(seen))) + "\n"


def _opsd(seen: Seen) -> Iterator[str]:
    yield "# Written by `opsd init` from what it saw. Read it once: what is a guess says so, and"
    yield "# from where. All keys: docs/configuration.md. Then: opsd check, opsd run-job backup."
    if seen.site_error:
        yield f"# NOT COMPLETE: {printable(seen.site_error)}"
    yield ""
    yield "[opsd]"
    source = printable(seen.timezone_source) or "nothing told it"
    yield f"timezone = {_string(seen.timezone)}  # guess: {source}"


def _repository() -> Iterator[str]:
    yield ""
    yield "# Guess: nobody but you knows where backups may go. Best is a disk or a bucket that"
    yield '# neither the cluster nor its file server can take with it; type = "s3" for a bucket.'
    yield "[repositories.backup]"
    yield 'type = "directory"'
    yield 'path = "/srv/backup"'


def _kubernetes(seen: Seen) -> Iterator[str]:
    if seen.site is None:
        yield ""
        yield "# No cluster was seen. To have its databases found, name it in [kubernetes]."
        return
    nodes = seen.site.nodes
    yield ""
    yield f"# The cluster: {len(nodes)} nodes: {_some(nodes)}"
    if seen.kubeconfig:
        yield "[kubernetes]"
        yield f"kubeconfig = {_string(seen.kubeconfig)}"
        yield f"context = {_string(seen.context)}"


def _alerts() -> Iterator[str]:
    yield ""
    yield "# Without a target a failed backup is told to nobody. An Apprise URL, for example"
    yield "# ntfys://TOPIC, in the environment; then: opsd notify-test."
    yield "# [[alerts.targets]]"
    yield '# name = "phone"'
    yield '# url = "env:OPSD_ALERT_URL"'


def _postgres(seen: Seen) -> Iterator[str]:
    yield ""
    if seen.site is not None:
        yield "[jobs.postgres-backup]"
        yield 'repositories = ["backup"]'
        yield "discover = true  # looked for anew in each run; docs/discovery.md"
        yield from _databases(seen.site)
    elif seen.socket_dir:
        yield "[jobs.postgres-backup]"
        yield 'repositories = ["backup"]'
        yield ""
        yield f"# Guess: there is a socket of PostgreSQL in {printable(seen.socket_dir)}."
        yield "[[jobs.postgres-backup.servers]]"
        yield 'name = "main"'
        yield f"host = {_string(seen.socket_dir)}"
        yield 'user = "opsd_backup"  # make it: docs/postgres.md'
    else:
        yield "# No PostgreSQL was seen."
        yield "# [jobs.postgres-backup]"
        yield '# repositories = ["backup"]'
        yield "# [[jobs.postgres-backup.servers]]"
        yield '# name = "main"'
        yield '# host = "postgres.example.org"'
        yield '# password = "env:OPSD_PG_PASSWORD"'


def _databases(site: Site) -> Iterator[str]:
    found = site.databases
    if not found.servers:
        yield "# Found now: none."
    for one in found.servers[:MOST_NAMED]:
        where = f"{one.address.host}:{one.address.port}"
        idle = "" if one.is_running else "; stopped, so not dumped"
        yield f"# Found now: {printable(f'{one.name}: {one.workload} at {where}')}{idle}"
    for problem in found.problems[:MOST_NAMED]:
        yield f"# Cannot be used: {printable(f'{problem.workload}: {problem.reason}')}"
        yield f"#   {printable(problem.remedy)}"
    for name in found.declined[:MOST_NAMED]:
        yield f'# Left out by opsd.dev/backup: "false": {printable(name)}'


def _shares(seen: Seen) -> Iterator[str]:
    exports = seen.site.exports if seen.site else ()
    yield ""
    if not exports:
        yield "# No NFS share was seen."
        yield "# [[jobs.nfs-backup.shares]]"
        yield '# name = "nfs"'
        yield '# path = "/mnt/nfs"'
        yield '# repository = "backup"'
        yield '# password = "file:/etc/opsd/restic-password"'
        return
    yield "# The password is yours to make: openssl rand -base64 32 > /etc/opsd/restic-password"
    yield "# Keep a copy elsewhere: without it nothing can be restored."
    for number, export in enumerate(exports, start=1):
        yield from _share(export, seen, name="nfs" if len(exports) == 1 else f"nfs-{number}")


def _share(export: Export, seen: Seen, *, name: str) -> Iterator[str]:
    where = printable(f"{export.server}:{export.path}")
    path = seen.mounts.get((export.server, export.path), "")
    yield ""
    yield f"# {where}, from {printable(export.source)}; {export.volumes} volumes lie on it."
    if not path:
        path = f"/mnt/{name}"
        yield f"# Guess: it is not mounted here yet: mount -t nfs -o ro {where} {path}"
    yield "[[jobs.nfs-backup.shares]]"
    yield f"name = {_string(name)}"
    yield f"path = {_string(path)}"
    yield 'repository = "backup"'
    yield 'password = "file:/etc/opsd/restic-password"'


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return printable(", ".join(names[:MOST_NAMED])) + more


def _string(text: str) -> str:
    import tomlkit  # noqa: PLC0415 - not for every command

    return str(tomlkit.item(text).as_string())
