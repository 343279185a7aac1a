from __future__ import annotations

import base64
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import pytest

from opsd.errors import PermanentError, TransientError
from opsd.http.page import FRESH_S, Page, is_expected
from opsd.testing import FakeClock

HTML = "<!doctype html><style>\nbody {}\n</style><p>{}</p>"


class Press:
    """Makes pages, and can be told to fail or to wait."""

    def __init__(self) -> None:
        self.made = 0
        self.error: PermanentError | TransientError | None = None
        self.may_go = threading.Event()
        self.may_go.set()

    def make(self) -> str:
        assert self.may_go.wait(60)
        if self.error:
            raise self.error
        self.made += 1
        return HTML.replace("{}</p>", f"{self.made}</p>")


@pytest.fixture
def press() -> Press:
    return Press()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_a_page_is_made_when_somebody_asks_and_kept_while_it_is_fresh(
    press: Press, clock: FakeClock
) -> None:
    page = Page(press.make, clock=clock)
    before = press.made

    shown = [page.answer().body]
    clock.ticks_s += FRESH_S - 0.1
    shown.append(page.answer().body)
    clock.ticks_s += 0.2
    shown.append(page.answer().body)

    assert before == 0
    assert [one[-5] for one in shown] == ["1", "1", "2"]


def test_a_browser_may_load_nothing_but_the_pages_own_style(
    press: Press, clock: FakeClock
) -> None:
    policy = Page(press.make, clock=clock).answer().policy

    digest = base64.b64encode(hashlib.sha256(b"\nbody {}\n").digest()).decode()
    assert f"style-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "form-action 'none'" in policy


def test_what_cannot_be_told_any_more_is_not_shown_as_it_was(
    press: Press, clock: FakeClock
) -> None:
    page = Page(press.make, clock=clock)
    page.answer()
    clock.ticks_s += FRESH_S + 1
    press.error = TransientError("the state is busy")

    answer = page.answer()
    press.error = None
    again = page.answer()

    assert answer.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert answer.body == "could not tell: TransientError: the state is busy\n"
    assert again.status is HTTPStatus.OK


def test_only_one_caller_waits_for_the_first_page(press: Press, clock: FakeClock) -> None:
    page = Page(press.make, clock=clock)
    press.may_go.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(page.answer)
        while not page._waiting.locked():
            pass
        second = page.answer()
        press.may_go.set()

        assert second.status is HTTPStatus.SERVICE_UNAVAILABLE
        assert "load it again" in second.body
        assert first.result().status is HTTPStatus.OK
    assert press.made == 1


def test_while_a_page_is_made_anew_others_see_the_old_one(press: Press, clock: FakeClock) -> None:
    page = Page(press.make, clock=clock)
    page.answer()
    clock.ticks_s += FRESH_S + 1
    press.may_go.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(page.answer)
        while not page._waiting.locked():
            pass
        second = page.answer()
        press.may_go.set()
        first.result()

    assert second.body[-5] == "1"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:8080", True),
        ("127.0.0.1", True),
        ("[::1]:8080", True),
        ("[fd00::7]", True),
        ("localhost", True),
        ("localhost:8080", True),
        ("LOCALHOST.:8080", True),
        ("opsd.example.org", True),
        ("Opsd.Example.Org:443", True),
        ("a.home", True),
        ("evil.example", False),
        ("localhost.evil.example:8080", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1:8080.evil.example", False),
        ("", False),
        (":8080", False),
        ("opsd.example.org@evil.example", False),
    ],
)
def test_a_page_is_shown_under_expected_names_only(host: str, *, expected: bool) -> None:
    assert is_expected(host, ["opsd.example.org", "*.home"]) is expected
