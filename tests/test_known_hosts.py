"""Whom opsd believes: the format of OpenSSH, read as OpenSSH reads it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from opsd.clients.ssh.known import HostKey, KnownHosts, place, replaced
from tests.rig.parts import program

KEY = HostKey("ssh-ed25519", b"one")
OTHER = HostKey("ssh-ed25519", b"other")


def known(*lines: str) -> KnownHosts:
    return KnownHosts.parse("\n".join(lines))


def keys_of(hosts: KnownHosts, name: str = "rpi3", port: int = 22) -> tuple[HostKey, ...]:
    return hosts.keys_of(name, address="10.0.0.3", port=port)


def test_a_machine_is_known_by_its_name() -> None:
    assert keys_of(known(f"rpi3 {KEY}")) == (KEY,)


def test_a_machine_is_known_by_its_address() -> None:
    assert keys_of(known(f"10.0.0.3 {KEY}")) == (KEY,)


def test_an_address_with_another_port_is_another_machine() -> None:
    hosts = known(f"10.0.0.3 {KEY}", f"[10.0.0.3]:2222 {OTHER}")

    assert keys_of(hosts, port=22) == (KEY,)
    assert keys_of(hosts, port=2222) == (OTHER,)


def test_a_name_counts_before_an_address_that_went_to_another_machine() -> None:
    hosts = known(f"10.0.0.3 {OTHER}", f"rpi3 {KEY}")

    assert keys_of(hosts) == (KEY,)


def test_a_machine_that_nobody_wrote_down_is_not_known() -> None:
    assert keys_of(known(f"rpi30,10.0.0.30 {KEY}", f"*.example.org {KEY}")) == ()


def test_several_keys_of_one_machine_are_all_believed() -> None:
    assert keys_of(known(f"rpi3 {KEY}", f"rpi3,nas {OTHER}")) == (KEY, OTHER)


def test_patterns_and_exceptions_count() -> None:
    hosts = known(f"rpi*,!rpi3 {KEY}")

    assert keys_of(hosts, "rpi4") == (KEY,)
    assert keys_of(hosts, "rpi3") == ()


@pytest.mark.parametrize(
    "line",
    ["", "# rpi3 ssh-ed25519 b25l", "rpi3", "rpi3 ssh-ed25519", "rpi3 ssh-ed25519 %%%", "\0\0\0"],
)
def test_a_line_that_makes_no_sense_vouches_for_nobody(line: str) -> None:
    assert known(line).entries == ()


def test_the_authority_of_certificates_vouches_for_nobody() -> None:
    assert known(f"@cert-authority * {KEY}").entries == ()


def test_a_revoked_key_is_believed_of_nobody() -> None:
    hosts = known(f"rpi3 {KEY}", f"@revoked * {KEY}")

    assert hosts.is_revoked(KEY)
    assert not hosts.is_revoked(OTHER)
    assert keys_of(known(f"@revoked rpi3 {KEY}")) == ()


def test_a_key_is_replaced_under_its_own_name_only() -> None:
    text = f"# mine\nrpi3 {OTHER}\nrpi3,nas {OTHER}\n@revoked rpi3 {OTHER}\nrpi4 {OTHER}\n"

    after = replaced(text, "rpi3", [KEY])

    assert after == (
        f"# mine\nrpi3,nas {OTHER}\n@revoked rpi3 {OTHER}\nrpi4 {OTHER}\nrpi3 {KEY}\n"
    )


@pytest.mark.parametrize(("port", "text"), [(22, "::1"), (2222, "[::1]:2222")])
def test_an_address_is_written_as_openssh_writes_it(port: int, text: str) -> None:
    assert place("::1", port) == text


@pytest.mark.real
def test_hashed_names_and_fingerprints_are_those_of_ssh_keygen(tmp_path: Path) -> None:
    keygen = program("ssh-keygen")
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    kind, blob, _ = (tmp_path / "key.pub").read_text().split(" ", 2)
    file = tmp_path / "known"
    file.write_text(f"rpi3 {kind} {blob}\n[10.0.0.3]:2222 {kind} {blob}\n")
    printed = subprocess.run(
        [keygen, "-lf", tmp_path / "key.pub"], check=True, capture_output=True, text=True
    ).stdout
    subprocess.run([keygen, "-H", "-f", file], check=True, capture_output=True)

    hosts = KnownHosts.parse(file.read_text())
    (key,) = keys_of(hosts)

    assert "rpi3" not in file.read_text()
    assert key.fingerprint == printed.split()[1]
    assert keys_of(hosts, "somebody", port=2222) == (key,)
    assert keys_of(hosts, "somebody") == ()


@pytest.mark.real
def test_what_opsd_writes_is_read_by_ssh_keygen(tmp_path: Path) -> None:
    keygen = program("ssh-keygen")
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    kind, blob, _ = (tmp_path / "key.pub").read_text().split(" ", 2)
    written = KnownHosts.parse(f"x {kind} {blob}").entries[0].key

    (tmp_path / "known").write_text(replaced("", "rpi3", [written]))

    found = subprocess.run(
        [keygen, "-F", "rpi3", "-f", tmp_path / "known"], check=True, capture_output=True
    )
    assert blob.encode() in found.stdout
