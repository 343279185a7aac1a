"""What the owner may say about backups of shares: the table ``[jobs.nfs-backup]``."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from opsd.backup.share.guards import Share
from opsd.backup.share.opening import EngineOptions
from opsd.config import Duration, Keep, RepositoryName, SecretRef, Table, unique_names

RULE_PREFIXES = ("!", "+ ", "- ", "#")  # mean something else to restic or rsync


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or path == Path("/"):
        raise ValueError("expected an absolute path below /")
    return path


def _plain_globs(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for at, pattern in enumerate(patterns, start=1):
        if not pattern.strip("/ ") or pattern.startswith(RULE_PREFIXES) or "\n" in pattern:
            raise ValueError(f"entry {at} is no pattern; expected a name or a /path, with * and ?")
    return patterns


def _export(export: str) -> str:
    if export and not export.rpartition(":")[2].startswith("/"):
        raise ValueError('expected "SERVER:/DIRECTORY" or "/DIRECTORY"')
    return export


class ShareTable(Table):
    """One directory tree."""

    name: str = Field(
        min_length=1, max_length=60, description="part of the backups' names; never change it"
    )
    path: Annotated[Path, AfterValidator(_absolute)] = Field(
        description="where it is mounted, or its directory on the file server itself",
        examples=["/srv/nfs"],
    )
    mounted: bool = Field(
        default=True,
        description="refuse unless the path is a mount point; false on the file server itself",
    )
    export: Annotated[str, AfterValidator(_export)] = Field(
        "",
        description="the same directory as volumes name it, if it is not mounted so",
        examples=["nas:/export/k8s"],
    )
    sentinel: str = Field(
        "", description="a file below the path that must exist", examples=[".this-is-the-share"]
    )
    engine: Literal["restic", "rsync"] = Field(
        "restic", description="restic: deduplicated, encrypted; rsync: plain files, hard links"
    )
    repository: RepositoryName = Field(
        description="where the manifests go, and the data unless destination is given",
        examples=["usb"],
    )
    destination: str = Field(
        "",
        description="the data's own place: a restic URL; for rsync /path or user@host:/path",
        examples=["backup@nas2:/srv/snapshots/nfs"],
    )
    password: SecretRef | None = Field(
        None,
        description="of the restic repository; without it nothing can be restored",
        examples=["file:/run/secrets/restic-password"],
    )
    environment: dict[str, SecretRef] = Field(
        default_factory=dict,
        description="variables that restic needs for its destination, such as AWS_ACCESS_KEY_ID",
    )
    ssh_identity: Path | None = Field(
        None, description="private key for a destination over SSH", examples=["/etc/opsd/id"]
    )
    known_hosts: Path | None = Field(
        None,
        description="host keys that are trusted; no other is accepted",
        examples=["/etc/opsd/known_hosts"],
    )
    exclude: Annotated[tuple[str, ...], AfterValidator(_plain_globs)] = Field(
        (".nfs*", "lost+found"),
        description="left out: name anywhere, or /path from the share's root; * ? ** allowed",
    )
    min_files: int = Field(1, ge=0, description="fewer files than this are no backup")
    shrink_percent: int = Field(
        50,
        ge=0,
        le=100,
        description="refuse if files or bytes fall below this share of the last backup; 0: never",
    )
    verify_within: Duration = Field(
        timedelta(days=30), description="all stored data is read back in this time, part by part"
    )
    spot_check_files: int = Field(
        20, ge=0, le=1000, description="files drawn at random, restored and compared each run"
    )
    keep: Keep = Field(default_factory=Keep, description="which backups of the share stay")

    @model_validator(mode="after")
    def _fits(self) -> ShareTable:
        if self.engine == "restic" and self.password is None:
            raise ValueError('password is missing: engine = "restic" needs one')
        if (
            "@" in self.destination.partition("://")[2]
            and ":" in self.destination.partition("://")[2].partition("@")[0]
        ):
            raise ValueError("destination: a password never stands in it; use environment")
        return self

    def share(self) -> Share:
        """The share itself."""
        return Share(
            name=self.name,
            path=self.path,
            mounted=self.mounted,
            sentinel=self.sentinel,
            exclude=self.exclude,
            min_files=self.min_files,
            shrink_percent=self.shrink_percent,
        )

    def options(self) -> EngineOptions:
        """What its engine needs."""
        return EngineOptions(
            engine=self.engine,
            destination=self.destination,
            password=self.password,
            environment=self.environment,
            ssh_identity=self.ssh_identity,
            known_hosts=self.known_hosts,
        )


class Settings(Table):
    """Settings of nfs-backup."""

    shares: Annotated[tuple[ShareTable, ...], AfterValidator(unique_names)] = Field(
        min_length=1, description="what is backed up, one after another"
    )
    claims: bool | None = Field(
        None,
        description="name claims of the cluster that no share holds; without: if opsd runs in one",
        examples=[True],
    )
    wanted_age: Duration = Field(
        timedelta(hours=36), description="a share without a good backup younger than this is named"
    )

    def looks_at_claims(self) -> bool:
        """Whether the cluster's claims are held against the shares."""
        from opsd.clients.kube.access import runs_in_cluster  # noqa: PLC0415 - when a job runs

        return runs_in_cluster() if self.claims is None else self.claims
