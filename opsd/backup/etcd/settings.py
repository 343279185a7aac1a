"""What the owner may say about backups of the control plane: the table ``[jobs.etcd-backup]``."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from opsd.config import AbsolutePath, Duration, Keep, RepositoryName, SecretRef, Table
from opsd.errors import ConfigError

#: In the example configuration: it can be read, and nothing can be encrypted to it.
EXAMPLE = "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq5cu47z"


def _public_keys(recipients: tuple[str, ...]) -> tuple[str, ...]:
    if not recipients:
        raise ValueError(
            "a snapshot holds every Secret and the keys of the cluster, so it is never stored"
            " unencrypted: name an age public key (age-keygen)"
        )
    from opsd.backup.crypt import parse_recipients  # noqa: PLC0415 - only when used

    try:
        parse_recipients(recipients)
    except ConfigError as exc:
        raise ValueError(str(exc)) from exc
    return recipients


def _urls(endpoints: tuple[str, ...]) -> tuple[str, ...]:
    for endpoint in endpoints:
        parts = urlsplit(endpoint)
        try:
            is_url = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            is_url = False
        if not is_url or parts.path.strip("/") or parts.username:
            raise ValueError('expected "https://ADDRESS:2379" in each')
    return endpoints


class Settings(Table):
    """Settings of etcd-backup."""

    repositories: tuple[RepositoryName, ...] = Field(
        min_length=1, description="where the backups go; each gets all of them", examples=[["usb"]]
    )
    recipients: Annotated[tuple[str, ...], AfterValidator(_public_keys)] = Field(
        description="age public keys; backups are always encrypted to them",
        examples=[[EXAMPLE]],
    )
    cluster: str = Field(
        "main",
        min_length=1,
        max_length=60,
        description="part of the backups' name; never change it",
    )
    endpoints: Annotated[tuple[str, ...], AfterValidator(_urls)] = Field(
        (),
        description="etcd's client URLs; without, the control planes are asked over SSH",
        examples=[["https://10.0.0.11:2379"]],
    )
    ca: SecretRef | None = Field(
        None,
        description="with endpoints: etcd's authority",
        examples=["file:/etc/kubernetes/pki/etcd/ca.crt"],
    )
    certificate: SecretRef | None = Field(
        None,
        description="with endpoints: what opsd shows",
        examples=["file:/etc/kubernetes/pki/apiserver-etcd-client.crt"],
    )
    key: SecretRef | None = Field(
        None,
        description="with endpoints: its private key",
        examples=["file:/etc/kubernetes/pki/apiserver-etcd-client.key"],
    )
    host_root: AbsolutePath | None = Field(
        None,
        description="with endpoints: where the root of a control plane is readable, for its files",
        examples=["/host"],
    )
    absent: tuple[str, ...] = Field(
        (),
        description="files that a rebuild needs and that are kept elsewhere",
        examples=[["/etc/kubernetes/pki/ca.key"]],
    )
    drill: bool = Field(
        default=True, description="restore each snapshot into an etcd of its own, and compare"
    )
    programs: AbsolutePath | None = Field(
        None,
        description="directory with etcd and etcdutl for the drill; without: those on PATH",
        examples=["/opt/etcd-3.6"],
    )
    drill_dir: AbsolutePath | None = Field(
        None,
        description="local directory for the drill, such as a tmpfs; without: below state_dir",
        examples=["/dev/shm"],  # noqa: S108 - an example of a place, not a file
    )
    space_warning: int = Field(
        80, ge=1, le=100, description="percent of etcd's quota that are worth a warning"
    )
    wanted_age: Duration = Field(
        timedelta(hours=36), description="without a good backup younger than this it is named"
    )
    shrink_warning: int = Field(
        50, ge=1, le=100, description="percent below the usual size that are worth a warning"
    )
    keep: Keep = Field(default_factory=Keep, description="which backups stay")

    @model_validator(mode="after")
    def _all_three(self) -> Settings:
        given = [one is not None for one in (self.ca, self.certificate, self.key)]
        is_tls = any(one.startswith("https:") for one in self.endpoints)
        if any(given) and not all(given):
            raise ValueError("ca, certificate and key belong together")
        if is_tls and not all(given):
            raise ValueError("https endpoints need ca, certificate and key")
        if not self.endpoints and (any(given) or self.host_root):
            raise ValueError("ca, certificate, key and host_root mean nothing without endpoints")
        return self

    def refuse_example(self) -> None:
        """Nobody has the private key of the one in the example.

        Raises:
            ConfigError: it is among the recipients.
        """
        if EXAMPLE in self.recipients:
            raise ConfigError(
                "recipients holds the key of the example, which opens nothing; make your own:"
                " age-keygen -o key.txt, and keep key.txt outside of the cluster"
            )
