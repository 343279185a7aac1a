"""Which deleted claim would take its data with it, and how does a deleted volume come back?

Each night the volumes, claims and classes of the cluster, and the directories on the share, are
looked at, and what can be lost by one command is told. The same facts go into the repository as
a catalogue, from which a deleted volume is bound to its directory again (docs/restore.md).
Nothing is changed, unless the owner names claims whose volumes are to be set to Retain.

Limits: the catalogue brings back bindings, not data. What a class does to a claim made today is
told tonight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from opsd.backup import naming
from opsd.backup.document import Document, Filing, How
from opsd.backup.share.guards import Share, probe, refuse_probed
from opsd.clients.kube.objects import PersistentVolume
from opsd.clock import Deadline
from opsd.cluster.volumes import catalogue as catalogues
from opsd.cluster.volumes.catalogue import Catalogue, Directory
from opsd.cluster.volumes.directories import Listing, about, export_of, read_listing
from opsd.cluster.volumes.fate import fate
from opsd.cluster.volumes.leaving import leaving
from opsd.cluster.volumes.retaining import Wanted, retain, wanted
from opsd.cluster.volumes.risks import risks
from opsd.cluster.volumes.storage import Storage, claim_of
from opsd.cluster.volumes.telling import CLUSTER, finding
from opsd.cluster.volumes.whole import Manifest, read
from opsd.config import Duration, Keep, RepositoryName, Table, unique_names
from opsd.errors import (
    ConfigError,
    DeadlineExceeded,
    OpsdError,
    PartialFailure,
    PermanentError,
    TransientError,
)
from opsd.job import Context, Job, Observation
from opsd.model import Finding, Seen, Severity
from opsd.text import printable, storable

KIND = "pv_catalog"
SHARE_S = 1800.0  # for listing one share; longer than any healthy one takes


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or path == Path("/"):
        raise ValueError("expected an absolute path below /")
    return path


def _exports(export: str) -> str:
    if export and not export.rpartition(":")[2].startswith("/"):
        raise ValueError('expected "SERVER:/DIRECTORY" or "/DIRECTORY"')
    return export


def _claims(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in patterns:
        if pattern.count("/") != 1 or pattern.startswith("/") or pattern.endswith("/"):
            raise ValueError('expected "namespace/claim" in each; * and ? are allowed')
    return patterns


class ShareTable(Table):
    """A share on which volumes lie, readable here."""

    name: str = Field(
        min_length=1, max_length=60, description="as nfs-backup calls it", examples=["nfs"]
    )
    path: Annotated[Path, AfterValidator(_absolute)] = Field(
        description="where it is mounted, or its directory on the file server itself",
        examples=["/srv/nfs"],
    )
    mounted: bool = Field(
        default=True,
        description="refuse unless the path is a mount point; false on the file server itself",
    )
    export: Annotated[str, AfterValidator(_exports)] = Field(
        "",
        description="the same directory as volumes name it, if it is not mounted so",
        examples=["nas:/export/k8s"],
    )
    ignore: tuple[str, ...] = Field(
        ("lost+found", ".snapshot*", ".zfs", "@eaDir", "#recycle"),
        description="names of directories that belong to no volume and need not",
    )
    measure: Duration = Field(
        timedelta(minutes=10), description="time for counting files; beyond it sizes stay open"
    )


class Settings(Table):
    """Settings of pv-guard."""

    repositories: tuple[RepositoryName, ...] = Field(
        min_length=1, description="where the catalogue goes; each gets it", examples=[["usb"]]
    )
    cluster: str = Field(
        "main",
        min_length=1,
        max_length=60,
        description="part of the catalogue's name; never change it",
    )
    shares: Annotated[tuple[ShareTable, ...], AfterValidator(unique_names)] = Field(
        (), description="shares whose directories are compared with the volumes"
    )
    retain: Annotated[tuple[str, ...], AfterValidator(_claims)] = Field(
        (),
        description='claims whose volumes are set to Retain, such as "db/*"; needs the right to '
        "patch volumes",
    )
    keep: Keep = Field(default_factory=Keep, description="which catalogues stay")


def run(ctx: Context, settings: Settings) -> Iterator[Observation]:
    """Look at every volume, tell what can be lost, and write it all down."""
    storage, manifests = read(ctx.kube)
    guard = _Guard(ctx, settings, storage)
    yield from guard.look_at_shares()
    yield from guard.file(manifests)
    yield from guard.retain()
    yield from guard.tell()
    guard.conclude()


class _Guard:
    """One run."""

    def __init__(self, ctx: Context, settings: Settings, storage: Storage) -> None:
        self._ctx = ctx
        self._settings = settings
        self._storage = storage
        self._subject = naming.subject("volumes", settings.cluster)
        self._listings: list[Listing] = []
        self._failed: list[str] = []
        self._may_pass = False

    def look_at_shares(self) -> Iterator[Finding]:
        """List each share; one that does not answer is told and left out."""
        for table in self._settings.shares:
            try:
                found = self._list(table)
            except (ConfigError, TransientError, PermanentError) as exc:
                self._fail(f"share/{table.name}", exc)
                yield _share_unreadable(table, printable(str(exc)))
            else:
                self._listings.append(found)

    def _list(self, table: ShareTable) -> Listing:
        ctx = self._ctx
        share = Share(name=table.name, path=table.path, mounted=table.mounted, min_files=0)
        probed = probe(share, clock=ctx.clock, deadline=ctx.deadline)
        if refused := refuse_probed(share, probed):
            raise TransientError(f"{refused.summary}: {refused.remedy}")
        source = probed.mount.source if probed.mount.kind.startswith("nfs") else ""
        export = export_of(
            table.name, table.path, told=table.export, source=source, storage=self._storage
        )
        patience = Deadline.after(min(SHARE_S, ctx.remaining()), ctx.clock)
        step = f"list {table.name}"
        ctx.progress.update(step)
        try:
            return read_listing(
                export,
                self._storage,
                ignored=table.ignore,
                measure_s=table.measure.total_seconds(),
                deadline=patience,
            )
        except DeadlineExceeded as exc:
            ctx.remaining()  # the run's own end is not the share's fault
            raise TransientError(f"share {table.name}: {table.path} does not answer") from exc
        finally:
            ctx.progress.finish(step)

    def file(self, manifests: Sequence[Manifest]) -> Iterator[Observation]:
        """Put the catalogue into every repository, and remove old ones."""
        made = catalogues.catalogue(manifests, self._directories())
        filing = Filing(self._document(made), self._how())
        names = dict.fromkeys(self._settings.repositories)
        yield from filing.prepare(iter(names), self._ctx.repository)
        if self._ctx.dry_run:
            yield _would_write(self._subject, made)
            yield from filing.describe()
        else:
            yield from filing.store()
        for name, error in filing.failures.items():
            self._fail(f"repository/{name}", error)

    def _document(self, made: Catalogue) -> Document:
        def check(content: bytes) -> None:
            if catalogues.decode(content, name=self._subject) != made:
                raise PermanentError(f"{self._subject}: cannot be read as it was written")

        return Document(
            kind=KIND,
            subject=self._subject,
            suffix=catalogues.SUFFIX,
            content=catalogues.encode(made),
            check=check,
            facts=made.counts(),
        )

    def _how(self) -> How:
        ctx = self._ctx
        return How(
            slot=ctx.slot,
            run_id=ctx.run_id,
            dead_runs=ctx.dead_runs,
            keep=self._settings.keep,
            timezone=ctx.timezone,
            deadline=ctx.deadline,
            progress=ctx.progress,
        )

    def _directories(self) -> Iterator[Directory]:
        for listing in self._listings:
            for one in listing.found:
                yield Directory(
                    share=listing.export.name,
                    path=storable(one.path),
                    inode=one.inode,
                    modified_at=one.newest.isoformat(),
                    volume=", ".join(one.volumes),
                    size_bytes=one.size_bytes,
                    files=one.files,
                )

    def retain(self) -> Iterator[Finding]:
        """Set to Retain what the owner named; what is done counts in what is told."""
        done: dict[str, PersistentVolume] = {}
        for one in wanted(self._storage, self._settings.retain):
            if self._ctx.dry_run:
                yield _would_retain(one)
                continue
            try:
                kept = retain(self._ctx.kube, one)
            except (TransientError, PermanentError) as exc:
                self._fail(f"persistentvolume/{one.volume.name}", exc)
                yield _not_retained(one, printable(str(exc)))
                break
            if kept:
                done[kept.name] = kept
        volumes = tuple(done.get(volume.name, volume) for volume in self._storage.volumes)
        self._storage = replace(self._storage, volumes=volumes)

    def tell(self) -> Iterator[Observation]:
        """What is wrong, and what was looked at."""
        storage = self._storage
        fates = {volume.name: fate(volume, storage) for volume in storage.volumes}
        yield from risks(storage, fates)
        yield from leaving(storage, fates)
        for listing in self._listings:
            yield from about(listing, storage)
            yield Seen(subject=f"share/{listing.export.name}")
        yield Seen(subject=CLUSTER)
        yield from (Seen(subject=f"storageclass/{name}") for name in storage.classes)
        namespaces = {claim.namespace for claim in storage.claims}
        yield from (Seen(subject=f"namespace/{name}") for name in sorted(namespaces))

    def conclude(self) -> None:
        """Say what the run came to.

        Raises:
            PartialFailure: something failed; it was told in findings.
        """
        if self._failed:
            raise PartialFailure(f"failed: {', '.join(self._failed)}", may_pass=self._may_pass)

    def _fail(self, place: str, exc: OpsdError) -> None:
        self._failed.append(place)
        self._may_pass = self._may_pass or isinstance(exc, TransientError)


def _share_unreadable(table: ShareTable, text: str) -> Finding:
    return finding(
        "volumes.share_unreadable",
        f"share/{table.name}",
        Severity.WARNING,
        f"its directories were not compared: {text}",
        "opsd check; the volumes themselves were looked at",
        error=text,
        path=str(table.path),
    )


def _would_write(subject: str, made: Catalogue) -> Finding:
    counts = made.counts()
    words = ", ".join(f"{kind} {count}" for kind, count in counts.items())
    return finding(
        "dry_run.catalogue", subject, Severity.INFO, f"would be written: {words}", "", **counts
    )


def _would_retain(one: Wanted) -> Finding:
    would = f"would be left alone: {one.refused}" if one.refused else "would be set to Retain"
    policy = one.volume.spec.persistent_volume_reclaim_policy
    return finding(
        "dry_run.retain",
        f"persistentvolume/{one.volume.name}",
        Severity.INFO,
        would,
        "",
        claim=claim_of(one.volume),
        policy=policy,
    )


def _not_retained(one: Wanted, text: str) -> Finding:
    return finding(
        "volumes.not_retained",
        CLUSTER,
        Severity.WARNING,
        f"volume {one.volume.name} could not be set to Retain: {text}",
        "kubectl apply -f deploy/policy/pv-guard.yaml, with its part for retain",
        error=text,
    )


JOB = Job(
    name="pv-guard",
    summary="tell which deletion would destroy data, and keep a catalogue of all volumes",
    group="",
    schedule="0 2 * * *",
    timeout=timedelta(hours=1),
    settings=Settings,
    run=run,
)
