"""The key by which machines know opsd: every kind that ssh-keygen makes, and what is none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from opsd.clients.ssh import keys
from opsd.errors import ConfigError
from opsd.secrets import Secret
from tests.rig.parts import program

pytestmark = pytest.mark.real

WORDS = "correct horse"


def made(home: Path, kind: str, *options: str, words: str = "") -> Path:
    key = home / "key"
    argv: list[str | Path] = [
        program("ssh-keygen"),
        "-q",
        "-t",
        kind,
        *options,
        "-N",
        words,
        "-C",
        "",
        "-f",
        key,
    ]
    subprocess.run(argv, check=True)
    return key


def secret_of(path: Path) -> Secret:
    return Secret(f"file:{path}")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ed25519", ()),
        ("ecdsa", ()),
        ("rsa", ()),
        ("rsa", ("-m", "PEM")),
        ("ecdsa", ("-m", "PEM")),
    ],
)
@pytest.mark.parametrize("words", ["", WORDS], ids=["open", "with a passphrase"])
def test_every_kind_is_read_with_its_public_line_and_fingerprint(
    tmp_path: Path, kind: str, options: tuple[str, ...], words: str
) -> None:
    path = made(tmp_path, kind, *options, words=words)
    (tmp_path / "words").write_text(f"{WORDS}\n")
    printed = subprocess.run(
        [program("ssh-keygen"), "-lf", path], check=True, capture_output=True, text=True
    ).stdout

    key = keys.load(secret_of(path), secret_of(tmp_path / "words") if words else None)

    assert key.public_line == path.with_suffix(".pub").read_text().strip()
    assert key.fingerprint == printed.split()[1]


def test_a_passphrase_that_is_missing_or_wrong_is_told(tmp_path: Path) -> None:
    path = made(tmp_path, "ed25519", words=WORDS)
    (tmp_path / "words").write_text("wrong horse")

    with pytest.raises(ConfigError, match=r"has a passphrase; set ssh\.passphrase"):
        keys.load(secret_of(path))
    with pytest.raises(ConfigError, match="cannot be read with the passphrase file:"):
        keys.load(secret_of(path), secret_of(tmp_path / "words"))


def test_a_passphrase_for_a_key_without_one_is_told(tmp_path: Path) -> None:
    path = made(tmp_path, "ed25519")
    (tmp_path / "words").write_text(WORDS)

    with pytest.raises(ConfigError, match="passphrase"):
        keys.load(secret_of(path), secret_of(tmp_path / "words"))


def test_every_length_of_a_key_and_its_comment_is_read(tmp_path: Path) -> None:
    for number in range(16):
        path = made(tmp_path, "ecdsa")
        comment = "ü" * number
        change: list[str | Path] = [program("ssh-keygen"), "-q", "-c", "-C", comment, "-f", path]
        subprocess.run(change, check=True, capture_output=True)

        key = keys.load(secret_of(path))

        assert path.with_suffix(".pub").read_text().startswith(key.public_line)
        path.unlink()


@pytest.mark.parametrize(
    "content",
    ["x", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----"],
)
def test_what_is_no_private_key_is_told_without_repeating_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_text(content)

    with pytest.raises(ConfigError, match="no private key of OpenSSH") as told:
        keys.load(secret_of(tmp_path / "key"))

    assert "AAAA" not in str(told.value)


def test_the_public_half_is_no_private_key(tmp_path: Path) -> None:
    path = made(tmp_path, "ed25519")

    with pytest.raises(ConfigError, match=r"the file without \.pub is meant"):
        keys.load(secret_of(path.with_suffix(".pub")))


def test_a_key_is_never_printed(tmp_path: Path) -> None:
    path = made(tmp_path, "ed25519")

    key = keys.load(secret_of(path))

    assert not any(line in repr(key) for line in path.read_text().splitlines()[1:-1])
