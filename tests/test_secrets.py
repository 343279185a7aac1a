from __future__ import annotations

import base64
import html
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opsd import secrets
from opsd.errors import ConfigError
from opsd.secrets import MASK, SHORTEST_REDACTED, Secret, conceal, conceal_url, redact
from opsd.text import shortened


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

    in_sql = value.replace("'", "''")
    for form in (value, quoted, repr(value)[1:-1], html.escape(value), in_sql):
        assert redact(f"<{form}>") == f"<{MASK}>"


def _encodable(value: str) -> bool:
    try:
        quote_plus(value, errors="surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


@given(
    st.lists(st.text("abcx-", min_size=SHORTEST_REDACTED, max_size=12), min_size=1, max_size=3),
    st.text("abcx-", max_size=6),
    st.integers(min_value=1, max_value=16),
)
def test_a_text_that_was_cut_in_a_secret_does_not_show_its_beginning(
    values: list[str], before: str, limit: int
) -> None:
    secrets._revealed = ()
    for value in values:
        conceal(value)

    cut = redact(shortened(f"{before} {values[0]} and more", limit))

    shown = cut.removesuffix("…")
    ends = {value[:n] for value in values for n in range(SHORTEST_REDACTED, len(value) + 1)}
    assert not any(shown.endswith(end) for end in ends)


def test_what_is_cut_elsewhere_stays_as_it_is() -> None:
    conceal("hunter22")

    assert redact("the hunt…") == f"the {MASK}…"
    assert redact("the hun…") == "the hun…"
    assert redact("the hunt") == "the hunt"


URLS = (
    ("tgram://123456789:AAbbCCddEEff/5551234567/", ("123456789", "AAbbCCddEEff", "5551234567")),
    ("discord://8412345678/wToken-abcdef", ("8412345678", "wToken-abcdef")),
    ("pover://userkey12@tokenkey34", ("userkey12", "tokenkey34")),
    ("ntfys://my-secret-topic", ("my-secret-topic",)),
    ("ntfys://tk_accesstoken@ntfy.example.org/alarms-9", ("tk_accesstoken", "alarms-9")),
    ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXr", ("T1JJ3T3L2", "A1BRTD4JD")),
    ("https://hc-ping.com/0b5c1e0a-7d1f/nfs-backup", ("0b5c1e0a-7d1f",)),
    ("http://127.0.0.1:3001/api/push/abcDEF12?status=up&key=tok%2Fen9", ("abcDEF12", "tok/en9")),
    ("json://opsd:pw42@127.0.0.1:8080/#fragment1", ("pw42", "fragment1")),
    ("mailtos://me:p%40ss%2F1@mail.example.org", ("p%40ss%2F1", "p@ss/1")),
    ("//not a URL : but@secret-host1", ("secret-host1",)),
)


@pytest.mark.parametrize(("url", "parts"), URLS)
@pytest.mark.parametrize("slugs", [False, True])
def test_no_part_of_an_address_that_is_a_secret_survives(
    url: str, parts: tuple[str, ...], *, slugs: bool
) -> None:
    conceal_url(url, slugs=slugs and url.startswith("http"))

    assert redact(f"call {url}: refused") == f"call {MASK}: refused"
    assert {redact(f"</{part}>") for part in parts} == {f"</{MASK}>"}


def test_a_login_does_not_survive_as_a_header() -> None:
    conceal_url("http://opsd:p%40ss@127.0.0.1/x")

    header = base64.b64encode(b"opsd:p@ss").decode()

    assert redact(f"Authorization: Basic {header}") == f"Authorization: Basic {MASK}"


@pytest.mark.parametrize(
    "words",
    [
        "cannot connect to mail.example.org:8080",
        "HTTPSConnectionPool(host='hc-ping.com', port=443)",
        "127.0.0.1:3001 and localhost:8080 and [::1]:8080 and push",
    ],
)
def test_hosts_and_ports_and_short_words_stay_readable(words: str) -> None:
    for url in (
        "mailtos://me:password1@mail.example.org:8080/push",
        "https://hc-ping.com/0b5c1e0a-7d1f",
        "http://127.0.0.1:3001/api/push/0b5c1e0a",
        "json://localhost:8080/",
        "json://[::1]:8080/",
    ):
        conceal_url(url)

    assert redact(words) == words


def test_the_name_of_a_job_in_the_address_of_its_ping_stays_readable() -> None:
    url = "https://hc-ping.com/0b5c1e0a-7d1f/nfs-backup"

    conceal_url(url, slugs=True)
    told = redact("nfs-backup failed")
    conceal_url(url)

    assert told == "nfs-backup failed"
    assert redact("nfs-backup failed") == f"{MASK} failed", "elsewhere it may be a topic"


@given(st.text(max_size=40))
def test_no_text_is_refused_as_an_address(url: str) -> None:
    secrets._revealed = ()

    conceal_url(url)

    assert len(url) < SHORTEST_REDACTED or url not in redact(f"<{url}>")
