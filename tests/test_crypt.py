"""Encrypted backups: stock age opens them, and nothing else does."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pyrage
import pytest

from opsd.backup.crypt import decrypt, encrypt, parse_recipients, read_identities
from opsd.errors import ConfigError, PermanentError
from opsd.secrets import redact
from tests.rig import parts

MIB = 1 << 20


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    return make_identity(tmp_path / "identity")


def make_identity(path: Path) -> Path:
    key = pyrage.x25519.Identity.generate()
    path.write_text(f"# public key: {key.to_public()}\n{key}\n")
    return path


def recipient(identity: Path) -> str:
    return identity.read_text().splitlines()[0].removeprefix("# public key: ")


def sealed(content: bytes, *recipients: str) -> bytes:
    target = io.BytesIO()
    encrypt(io.BytesIO(content).read, target.write, recipients)
    return target.getvalue()


def opened(content: bytes, identity: Path) -> bytes:
    target = io.BytesIO()
    decrypt(io.BytesIO(content).read, target.write, read_identities(identity))
    return target.getvalue()


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 3 * MIB + 17])
def test_what_was_encrypted_comes_back(identity: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    content = content[:size]

    assert opened(sealed(content, recipient(identity)), identity) == content


def test_each_recipient_can_open_it(identity: Path, tmp_path: Path) -> None:
    other = make_identity(tmp_path / "other")

    content = sealed(b"secret", recipient(identity), recipient(other))

    assert opened(content, identity) == opened(content, other) == b"secret"


def test_another_identity_is_told_that_it_does_not_fit(identity: Path, tmp_path: Path) -> None:
    content = sealed(b"secret", recipient(identity))

    with pytest.raises(PermanentError, match="no identity fits"):
        opened(content, make_identity(tmp_path / "other"))


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_data_is_refused(identity: Path, damage: str) -> None:
    content = bytearray(sealed(b"x" * MIB, recipient(identity)))
    if damage == "cut":
        del content[-5:]
    else:
        content[-70_000] ^= 1

    with pytest.raises(PermanentError, match="cut or changed"):
        opened(bytes(content), identity)


def test_data_cut_between_two_blocks_is_refused(identity: Path) -> None:
    content = sealed(b"x" * (128 * 1024), recipient(identity))
    last_block = 64 * 1024 + 16

    with pytest.raises(PermanentError, match="cut or changed"):
        opened(content[:-last_block], identity)


@pytest.mark.parametrize("content", [b"", b"PGDMP not age", b"\xff" * 1000])
def test_what_is_no_age_stream_is_refused(identity: Path, content: bytes) -> None:
    with pytest.raises(PermanentError, match="decrypt"):
        opened(content, identity)


class ReadError(Exception):
    pass


@pytest.mark.parametrize("kind", [ReadError, KeyboardInterrupt, PermanentError, OSError])
def test_an_error_of_the_source_comes_out_as_itself(
    identity: Path, kind: type[BaseException]
) -> None:
    error = kind("pg_dump ended with exit status 1")
    pieces = iter([b"x" * MIB])

    def read(_: int) -> bytes:
        for piece in pieces:
            return piece
        raise error

    with pytest.raises(kind) as caught:
        encrypt(read, io.BytesIO().write, [recipient(identity)])

    assert caught.value is error


@pytest.mark.parametrize("size", [10, 5 * MIB])
def test_an_error_of_the_target_comes_out_as_itself(identity: Path, size: int) -> None:
    error = ReadError("no space left")

    def write(_: bytes) -> None:
        raise error

    with pytest.raises(ReadError) as caught:
        encrypt(io.BytesIO(b"x" * size).read, write, [recipient(identity)])

    assert caught.value is error


def test_errors_come_out_of_decryption_as_themselves(identity: Path) -> None:
    content = sealed(b"x" * 5 * MIB, recipient(identity))
    error = ReadError("cut")

    def fail(_: object) -> bytes:
        raise error

    with pytest.raises(ReadError):
        decrypt(fail, io.BytesIO().write, read_identities(identity))
    with pytest.raises(ReadError):
        decrypt(io.BytesIO(content).read, fail, read_identities(identity))


@pytest.mark.parametrize(
    "text", ["", "age1xyz", "ssh-ed25519 AAAA", "ssh-dss AAAA", "bob", "\udcff"]
)
def test_what_is_no_public_key_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match="recipient"):
        parse_recipients([text])


def test_a_private_key_as_recipient_is_refused_without_repeating_it(identity: Path) -> None:
    secret = identity.read_text().splitlines()[1]

    with pytest.raises(ConfigError, match="private key") as caught:
        parse_recipients([secret])

    assert secret not in str(caught.value)
    assert secret not in redact(f"recipients = {secret}")


def test_encryption_without_recipients_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        sealed(b"x")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"# only a comment\n", "empty"),
        (b"AGE-SECRET-KEY-1XYZ\n", "no usable private key"),
        (b"\xff\xfe", "no usable private key"),
        (b"age-encryption.org/v1\n-> scrypt", "passphrase"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nx\n", "no usable private key"),
    ],
)
def test_what_is_no_identity_is_refused_by_name(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "my-identity"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match=reason) as caught:
        read_identities(path)

    assert "my-identity" in str(caught.value)


def test_a_missing_identity_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_identities(tmp_path / "none")


def test_the_identity_never_shows(identity: Path) -> None:
    secret = identity.read_text().splitlines()[1]

    read_identities(identity)

    assert secret not in redact(f"found {secret}")


@pytest.mark.real
def test_stock_age_opens_what_was_encrypted_and_the_other_way_round(
    identity: Path, tmp_path: Path
) -> None:
    age = parts.program("age")
    content = bytes(range(256)) * 4096
    (tmp_path / "backup.age").write_bytes(sealed(content, recipient(identity)))
    (tmp_path / "plain").write_bytes(content)

    restored = subprocess.run(
        [age, "-d", "-i", identity, tmp_path / "backup.age"], capture_output=True, check=True
    )
    subprocess.run(
        [age, "-r", recipient(identity), "-o", tmp_path / "theirs.age", tmp_path / "plain"],
        check=True,
    )

    assert restored.stdout == content
    assert opened((tmp_path / "theirs.age").read_bytes(), identity) == content


@pytest.mark.real
def test_an_ssh_key_works_as_recipient_and_identity(tmp_path: Path) -> None:
    key = tmp_path / "id_ed25519"
    subprocess.run(
        [parts.program("ssh-keygen"), "-qt", "ed25519", "-N", "", "-f", key], check=True
    )

    content = sealed(b"secret", key.with_suffix(".pub").read_text())

    assert opened(content, key) == b"secret"


@pytest.mark.real
def test_an_ssh_key_with_a_passphrase_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "id_ed25519"
    keygen = parts.program("ssh-keygen")
    subprocess.run([keygen, "-qt", "ed25519", "-N", "words", "-f", key], check=True)
    content = sealed(b"secret", key.with_suffix(".pub").read_text())

    with pytest.raises((ConfigError, PermanentError)):
        opened(content, key)


MEMORY_PROBE = """
import resource, sys
from opsd.backup.crypt import encrypt
piece, left = bytes(1 << 20), [200]
def read(size):
    left[0] -= 1
    return piece if left[0] >= 0 else b""
written = [0]
def write(data):
    written[0] += len(data)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
encrypt(read, write, [sys.argv[1]])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert written[0] > 200 << 20
print(after - before)
"""


def test_memory_stays_flat_over_200_mib(identity: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY_PROBE, recipient(identity)],
        capture_output=True,
        check=True,
        text=True,
    )

    assert int(ran.stdout) < 16 * 1024  # KiB
