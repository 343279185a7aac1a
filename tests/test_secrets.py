from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opsd import secrets
from opsd.errors import ConfigError
from opsd.secrets import MASK, SHORTEST_REDACTED, Secret, conceal, redact


@pytest.fixture(autouse=True)
def nothing_revealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_revealed", ())


def test_a_secret_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSD_TEST_SECRET", "value of it")

    assert Secret("env:OPSD_TEST_SECRET").reveal() == "value of it"


@pytest.mark.parametrize(
    ("content", "value"),
    [("abcd\n", "abcd"), ("abcd\r\n", "abcd"), ("ab cd", "ab cd"), ("abcd\n\n", "abcd\n")],
)
def test_the_last_newline_of_a_file_is_not_part_of_the_secret(
    tmp_path: Path, content: str, value: str
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content.encode())

    assert Secret(f"file:{path}").reveal() == value


def test_a_secret_prints_as_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSD_TEST_SECRET", "value of it")
    secret = Secret("env:OPSD_TEST_SECRET")
    secret.reveal()

    assert str(secret) == "env:OPSD_TEST_SECRET"
    assert "value of it" not in repr(secret)


def test_a_secret_that_cannot_be_read_names_its_reference(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    empty = tmp_path / "empty"
    empty.write_text("\n")

    for reference, reason in [
        ("env:OPSD_NOT_SET", "not set"),
        (f"file:{tmp_path}/missing", "No such file"),
        (f"file:{binary}", "not valid UTF-8"),
        (f"file:{empty}", "is empty"),
    ]:
        with pytest.raises(ConfigError, match=reason) as caught:
            Secret(reference).reveal()
        assert reference in str(caught.value)


def test_redaction_starts_at_the_shortest_length() -> None:
    conceal("x" * (SHORTEST_REDACTED - 1))
    conceal("y" * SHORTEST_REDACTED)

    assert redact("xxx yyyy") == f"xxx {MASK}"


def test_a_secret_inside_another_leaves_no_rest() -> None:
    conceal("hunter22")
    conceal("hunter22-and-more")

    assert redact("hunter22-and-more hunter22") == f"{MASK} {MASK}"


def test_a_secret_of_several_lines_goes_in_one_line_too() -> None:
    conceal("-----BEGIN-----\nabc\n-----END-----")

    assert redact("key: -----BEGIN----- abc -----END-----") == f"key: {MASK}"


@example("key \ud800")
@given(st.text(min_size=SHORTEST_REDACTED, alphabet=st.characters(codec=None)))
def test_no_form_of_any_secret_survives(value: str) -> None:
    secrets._revealed = ()
    conceal(value)
    quoted = quote(value, safe="", errors="surrogateescape") if _encodable(value) else value

    for form in (value, quoted, repr(value)[1:-1]):
        assert redact(f"<{form}>") == f"<{MASK}>"


def _encodable(value: str) -> bool:
    try:
        quote_plus(value, errors="surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
