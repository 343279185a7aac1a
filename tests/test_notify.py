from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from opsd import logs, secrets
from opsd.clients.notify import Notifier, stripped
from opsd.clock import Deadline, SystemClock
from opsd.config import AlertTarget
from opsd.errors import ConfigError, DeadlineExceeded, TransientError
from opsd.model import Message, Severity
from opsd.secrets import Secret
from tests.rig.sink import Answer, Request, Sink

TOKEN = "c4naryToken0123456789"
MESSAGE = Message(
    key="run/1/1",
    severity=Severity.CRITICAL,
    title="Act now: dump of app failed",
    body="database/main/app <b>&amp; *not* _markup_\n\nNext: opsd run-job postgres-backup",
)


@pytest.fixture(autouse=True)
def nothing_revealed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(secrets, "_revealed", ())
    root = logging.getLogger()
    handlers = list(root.handlers)
    yield
    root.handlers[:] = handlers


def target(
    url: str,
    tmp_path: Path,
    *,
    name: str = "phone",
    min_severity: str = "warning",
    tags: Sequence[str] = (),
) -> AlertTarget:
    path = tmp_path / f"url-of-{name}"
    path.write_text(url)
    return AlertTarget.model_validate(
        {"name": name, "url": Secret(f"file:{path}"), "min_severity": min_severity, "tags": tags}
    )


def json_url(sink: Sink, path: str = "/") -> str:
    return f"json://127.0.0.1:{sink.port}{path}"


def soon(seconds: float = 30) -> Deadline:
    return Deadline.after(seconds, SystemClock())


@pytest.mark.real
def test_a_message_arrives_as_it_was_written(sink: Sink, tmp_path: Path) -> None:
    Notifier([target(json_url(sink), tmp_path)]).send("phone", MESSAGE, deadline=soon())

    (request,) = sink.wait_for(1)
    told = json.loads(request.body)
    assert (told["title"], told["message"]) == (MESSAGE.title, MESSAGE.body)
    assert told["type"] == "failure"


@pytest.mark.real
def test_ntfy_gets_plain_text(sink: Sink, tmp_path: Path) -> None:
    notifier = Notifier([target(f"ntfy://127.0.0.1:{sink.port}/{TOKEN}", tmp_path)])

    notifier.send("phone", MESSAGE, deadline=soon())

    (request,) = sink.wait_for(1)
    told = json.loads(request.body)
    assert told["topic"] == TOKEN
    assert (told["title"], told["message"]) == (MESSAGE.title, MESSAGE.body)
    assert request.headers.get("x-markdown") is None


@pytest.mark.real
def test_what_is_too_long_for_a_service_is_split_not_lost(sink: Sink, tmp_path: Path) -> None:
    notifier = Notifier([target(json_url(sink), tmp_path)])
    notifier.check("phone")
    for plugin in notifier._services["phone"]:
        plugin.body_maxlen = 500
        plugin.request_rate_per_sec = 0
    long = Message(
        key="k", severity=Severity.WARNING, title="t", body="\n".join(map(str, range(300)))
    )

    notifier.send("phone", long, deadline=soon())

    told = "\n".join(json.loads(request.body)["message"] for request in sink.wait_for(3))
    assert all(str(number) in told.split() for number in range(300))


@pytest.mark.real
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_a_refusal_is_an_error(status: int, sink: Sink, tmp_path: Path) -> None:
    sink.answer(status)
    notifier = Notifier([target(json_url(sink), tmp_path)])

    with pytest.raises(TransientError, match="send to phone"):
        notifier.send("phone", MESSAGE, deadline=soon())


@pytest.mark.real
def test_a_service_that_is_not_there_is_an_error(sink: Sink, tmp_path: Path) -> None:
    url = json_url(sink)
    sink.refuse()

    with pytest.raises(TransientError, match="send to phone"):
        Notifier([target(url, tmp_path)]).send("phone", MESSAGE, deadline=soon())


@pytest.mark.real
def test_a_service_that_hangs_costs_no_more_than_the_deadline(sink: Sink, tmp_path: Path) -> None:
    sink.hang()
    notifier = Notifier([target(json_url(sink), tmp_path)])

    with pytest.raises(DeadlineExceeded, match="no answer within 1 s"):
        notifier.send("phone", MESSAGE, deadline=soon(1.0))


@pytest.mark.real
def test_each_target_is_served_by_itself(sink: Sink, tmp_path: Path) -> None:
    notifier = Notifier(
        [
            target("json://127.0.0.1:1/", tmp_path, name="dead"),
            target(json_url(sink), tmp_path, name="alive"),
        ]
    )

    with pytest.raises(TransientError, match="send to dead"):
        notifier.send("dead", MESSAGE, deadline=soon())
    notifier.send("alive", MESSAGE, deadline=soon())

    assert len(sink.wait_for(1)) == 1


@pytest.mark.real
def test_a_wrong_target_does_not_stop_the_others(sink: Sink, tmp_path: Path) -> None:
    notifier = Notifier(
        [
            target("nosuchservice://x", tmp_path, name="wrong"),
            target(json_url(sink), tmp_path, name="right"),
        ]
    )

    with pytest.raises(ConfigError, match="alerts target wrong"):
        notifier.send("wrong", MESSAGE, deadline=soon())
    notifier.send("right", MESSAGE, deadline=soon())

    assert len(sink.wait_for(1)) == 1


def test_a_target_wants_its_severity_and_worse(tmp_path: Path) -> None:
    notifier = Notifier(
        [
            target("json://127.0.0.1:1/", tmp_path, name="all"),
            target("json://127.0.0.1:1/", tmp_path, name="night", min_severity="critical"),
        ]
    )

    assert notifier.targets(replace(MESSAGE, severity=Severity.INFO)) == ("all",)
    assert notifier.targets(replace(MESSAGE, severity=Severity.WARNING)) == ("all",)
    assert notifier.targets(replace(MESSAGE, severity=Severity.CRITICAL)) == ("all", "night")


def test_a_report_goes_where_warnings_go(tmp_path: Path) -> None:
    notifier = Notifier(
        (
            target("json://127.0.0.1:9/", tmp_path, name="all"),
            target("json://127.0.0.1:9/", tmp_path, name="night", min_severity="critical"),
        )
    )

    assert notifier.targets(replace(MESSAGE, severity=Severity.INFO)) == ("all",)


def test_a_message_with_tags_goes_to_targets_of_that_tag_or_name(tmp_path: Path) -> None:
    notifier = Notifier(
        [
            target("json://127.0.0.1:1/", tmp_path, name="phone"),
            target("json://127.0.0.1:1/", tmp_path, name="chat", tags=["night", "team"]),
        ]
    )

    assert notifier.targets(replace(MESSAGE, tags=("night",))) == ("chat",)
    assert notifier.targets(replace(MESSAGE, tags=("phone",))) == ("phone",)
    assert notifier.targets(replace(MESSAGE, tags=("nobody",))) == ("phone", "chat")


@pytest.mark.parametrize(
    "url", [f"nosuchservice://{TOKEN}/x", TOKEN, f"tgram://{TOKEN}", "json://", "\udcff://"]
)
def test_a_url_that_apprise_does_not_know_is_a_configuration_error(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPSD_TEST_URL", url)
    wrong = AlertTarget.model_validate({"name": "phone", "url": "env:OPSD_TEST_URL"})

    with pytest.raises(ConfigError, match="alerts target phone: env:OPSD_TEST_URL") as caught:
        Notifier([wrong]).check("phone")

    assert TOKEN not in str(caught.value)


@pytest.mark.real
def test_no_part_of_a_url_is_shown_when_a_message_fails(sink: Sink, tmp_path: Path) -> None:
    written = io.StringIO()
    logs.configure(level="debug", stream=written)
    logging.getLogger("apprise").setLevel(logging.DEBUG)
    sink.answer(500)
    urls = [
        f"json://user:pass{TOKEN}@127.0.0.1:{sink.port}/{TOKEN}?key={TOKEN}",
        f"ntfy://127.0.0.1:{sink.port}/{TOKEN}",
    ]
    for url in urls:
        with pytest.raises(TransientError) as caught:
            Notifier([target(url, tmp_path)]).send("phone", MESSAGE, deadline=soon())
        assert TOKEN not in str(caught.value)

    assert TOKEN not in written.getvalue()


def dislikes_markup(request: Request) -> Answer:
    """A service that takes these characters for its markup, and does not understand it."""
    return Answer(
        status=400 if set(json.loads(request.body)["message"]) & set("<>&*_`[]") else 200
    )


@pytest.mark.real
def test_a_text_that_a_service_refuses_is_sent_again_without_markup(
    sink: Sink, tmp_path: Path
) -> None:
    sink.answer_by(dislikes_markup)

    Notifier([target(json_url(sink), tmp_path)]).send("phone", MESSAGE, deadline=soon())

    refused, taken = (json.loads(request.body)["message"] for request in sink.wait_for(2))
    assert refused == MESSAGE.body
    assert taken == "database/main/app b amp; not markup \n\nNext: opsd run-job postgres-backup"


@pytest.mark.real
@pytest.mark.parametrize(
    ("status", "times"),
    [(400, 2), (413, 2), (422, 2), (401, 1), (403, 1), (404, 1), (410, 1), (429, 1), (500, 1)],
)
def test_only_what_is_refused_for_its_content_is_sent_again_and_only_once(
    status: int, times: int, sink: Sink, tmp_path: Path
) -> None:
    sink.answer(status)

    with pytest.raises(TransientError, match="send to phone"):
        Notifier([target(json_url(sink), tmp_path)]).send("phone", MESSAGE, deadline=soon())

    assert len(sink.requests) == times


@pytest.mark.real
def test_a_code_of_the_service_is_read_as_the_status_that_it_begins_with(
    sink: Sink, tmp_path: Path
) -> None:
    notifier = Notifier([target(f"ntfy://127.0.0.1:{sink.port}/{TOKEN}", tmp_path)])
    notifier.check("phone")
    for plugin in notifier._services["phone"]:
        plugin.request_rate_per_sec = 0
    sink.answer(429, b'{"code": 42908, "error": "limit reached: daily message quota"}')
    with pytest.raises(TransientError, match="send to phone"):
        notifier.send("phone", MESSAGE, deadline=soon())
    refused_for_the_sender = len(sink.requests)
    sink.answer(400, b'{"code": 40011, "error": "message cannot be parsed"}')

    with pytest.raises(TransientError, match="send to phone"):
        notifier.send("phone", MESSAGE, deadline=soon())

    assert (refused_for_the_sender, len(sink.requests)) == (1, 3)


def test_a_stripped_message_is_letters_digits_and_harmless_signs() -> None:
    hostile = replace(MESSAGE, title="Größe: 5 GiB [x](y)", body="a_b *c*\n`d` \udcff\x1b[31m €")

    plain = stripped(hostile)

    assert plain.title == "Groe: 5 GiB x y "
    assert plain.body.splitlines()[0] == "a b c "
    assert plain.body.isascii()
    assert not set(plain.title + plain.body) & set("_*`[]()<>&#|~\\\x1b")


@pytest.mark.parametrize("separator", [",", " ", "\n"])
def test_several_urls_in_one_target_are_a_configuration_error(
    separator: str, tmp_path: Path
) -> None:
    urls = separator.join(["json://127.0.0.1:1/a", "json://127.0.0.1:1/b"])

    with pytest.raises(ConfigError, match="holds 2 URLs; make a target of each"):
        Notifier([target(urls, tmp_path)]).check("phone")


def test_it_is_known_from_which_severity_on_each_target_wants_messages(tmp_path: Path) -> None:
    notifier = Notifier(
        [
            target("json://127.0.0.1:1/", tmp_path, name="all"),
            target("json://127.0.0.1:1/", tmp_path, name="night", min_severity="critical"),
        ]
    )

    assert notifier.known == {"all": Severity.WARNING, "night": Severity.CRITICAL}
