"""Known hosts on a disk: written whole or not at all, and never by surprise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from opsd.clients.kube.client import Kube
from opsd.clients.ssh.known import HostKey
from opsd.clock import Deadline
from opsd.errors import ConfigError
from opsd.hosts.trust import Trust
from tests.rig.fleets import within
from tests.test_roster import ACCESS

KEY = HostKey("ssh-ed25519", b"one")
OTHER = HostKey("ssh-ed25519", b"other")


def no_cluster(_: Deadline) -> Kube:
    raise ConfigError("there is no cluster")


def trust_in(path: Path, configmap: str = "") -> Trust:
    return Trust(replace(ACCESS, known_hosts=path, known_hosts_configmap=configmap), no_cluster)


def keys_of(trust: Trust, name: str) -> tuple[HostKey, ...]:
    return trust.known(within(5)).keys_of(name, address="10.0.0.3", port=22)


def test_nobody_is_known_before_anybody_was_believed(tmp_path: Path) -> None:
    assert keys_of(trust_in(tmp_path / "known_hosts"), "rpi3") == ()


def test_who_was_believed_is_known_to_the_next(tmp_path: Path) -> None:
    trust_in(tmp_path / "new/known_hosts").believe("rpi3", [KEY])
    trust_in(tmp_path / "new/known_hosts").believe("rpi4", [OTHER])

    trust = trust_in(tmp_path / "new/known_hosts")

    assert (keys_of(trust, "rpi3"), keys_of(trust, "rpi4")) == ((KEY,), (OTHER,))
    assert (tmp_path / "new/known_hosts").stat().st_mode & 0o077 == 0


def test_a_new_key_of_a_machine_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    trust = trust_in(tmp_path / "known_hosts")
    trust.believe("rpi3", [KEY])

    trust.believe("rpi3", [OTHER])

    assert keys_of(trust, "rpi3") == (OTHER,)
    assert [one.name for one in tmp_path.iterdir()] == ["known_hosts"]


def test_comments_and_bytes_that_are_no_text_stay(tmp_path: Path) -> None:
    (tmp_path / "known_hosts").write_bytes(b"# caf\xe9\n")

    trust_in(tmp_path / "known_hosts").believe("rpi3", [KEY])

    assert (tmp_path / "known_hosts").read_bytes().startswith(b"# caf\xe9\nrpi3 ssh-ed25519 ")


def test_a_file_that_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "known_hosts").mkdir()
    trust = trust_in(tmp_path / "known_hosts")

    with pytest.raises(ConfigError, match=r"ssh.known_hosts: read .*known_hosts: Is a directory"):
        trust.known(within(5))
    with pytest.raises(ConfigError, match="known_hosts"):
        trust.believe("rpi3", [KEY])


def test_a_full_disk_keeps_what_was_believed(small_tmpfs: object) -> None:
    home: Path = small_tmpfs("64k")  # type: ignore[operator]
    trust = trust_in(home / "known_hosts")
    trust.believe("rpi3", [KEY])
    with pytest.raises(OSError, match="No space"):
        (home / "full").write_bytes(bytes(1 << 20))

    with pytest.raises(ConfigError, match="No space left"):
        trust.believe("rpi4", [HostKey("ssh-rsa", bytes(8192))])

    assert keys_of(trust, "rpi3") == (KEY,)
    assert sorted(one.name for one in home.iterdir()) == ["full", "known_hosts"]


def test_a_configmap_that_was_never_read_is_a_mistake(tmp_path: Path) -> None:
    trust = trust_in(tmp_path / "known_hosts", "opsd/known-hosts")

    with pytest.raises(ConfigError, match=r"known_hosts_configmap: there is no cluster"):
        trust.known(within(5))


def test_a_configmap_that_cannot_be_read_now_counts_as_it_was_read_last(tmp_path: Path) -> None:
    (tmp_path / "known_hosts.cluster").write_text(f"rpi3 {KEY}\n")
    trust = trust_in(tmp_path / "known_hosts", "opsd/known-hosts")

    assert keys_of(trust, "rpi3") == (KEY,)
