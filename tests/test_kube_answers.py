"""What is no good answer is an error in words, and never an empty cluster."""

from __future__ import annotations

import json

import pytest

from opsd.clients.kube.answers import Answer, raise_for, read_object, read_page
from opsd.clients.kube.errors import Conflict, Expired, Forbidden, NotFound, Refused, Unreachable
from opsd.clients.kube.objects import Pod, StatefulSet
from opsd.errors import OpsdError

WHAT = "list pods in monitoring"


def refusal(code: int, reason: str = "", message: str = "") -> Answer:
    status = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return Answer(status=code, body=json.dumps(status).encode())


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (400, Refused),
        (401, Forbidden),
        (403, Forbidden),
        (404, NotFound),
        (405, Refused),
        (408, Unreachable),
        (409, Conflict),
        (410, Expired),
        (422, Refused),
        (429, Unreachable),
        (499, Refused),
        (500, Unreachable),
        (503, Unreachable),
        (504, Unreachable),
        (302, Unreachable),
    ],
)
def test_each_status_is_its_own_error(code: int, error: type[OpsdError]) -> None:
    with pytest.raises(error, match=rf"^list pods in monitoring: {code} Why: it said so$") as told:
        raise_for(refusal(code, "Why", "it said so"), WHAT)

    assert type(told.value) is error


@pytest.mark.parametrize("code", [200, 201, 202, 299])
def test_a_good_answer_is_no_error(code: int) -> None:
    raise_for(Answer(status=code, body=b"{}"), WHAT)


def test_an_answer_that_was_cut_short_is_an_error_whatever_its_status() -> None:
    with pytest.raises(Unreachable, match="cut short"):
        raise_for(Answer(status=200, body=b'{"items": []', is_whole=False), WHAT)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            (
                'pods is forbidden: User "system:serviceaccount:opsd:opsd" cannot list resource '
                '"pods" in API group "" in the namespace "monitoring"'
            ),
            "serviceaccount opsd/opsd cannot list pods",
        ),
        (
            (
                'nodes "rpi3" is forbidden: User "jane" cannot patch resource "nodes/status" '
                'in API group "" at the cluster scope'
            ),
            "user jane cannot patch nodes/status",
        ),
        ("exceeded quota: pods=10", "exceeded quota: pods=10"),
    ],
)
def test_a_missing_right_is_told_as_a_person_would(message: str, words: str) -> None:
    with pytest.raises(Forbidden) as told:
        raise_for(refusal(403, "Forbidden", message), WHAT)

    assert str(told.value) == f"{WHAT}: 403 Forbidden: {words}"


def test_a_version_from_before_the_cluster_was_restored_is_expired() -> None:
    answer = refusal(504, "Timeout", "Too large resource version: 900, current: 20")

    with pytest.raises(Expired):
        raise_for(answer, WHAT)


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("", 0.0), ("soon", 0.0), ("-1", 0.0)]
)
def test_what_a_busy_server_asks_for_is_kept(header: str, seconds: float) -> None:
    with pytest.raises(Unreachable) as told:
        raise_for(Answer(status=429, body=b"{}", retry_after=header), WHAT)

    assert (told.value.retry_after_s, told.value.status) == (seconds, 429)


def test_the_page_of_a_proxy_is_shown_in_one_short_line() -> None:
    page = b"<html>\n<head><title>502 Bad\x1b[31m Gateway</title></head>" + b"x" * 5000

    with pytest.raises(Unreachable) as told:
        raise_for(Answer(status=502, body=page), WHAT)

    assert str(told.value).startswith(f"{WHAT}: 502: <html> <head><title>502 Bad [31m Gateway")
    assert len(str(told.value)) < 400
    assert "\x1b" not in str(told.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>login</html>",
        b"[]",
        b"null",
        b"3",
        b"{}",
        b'{"error": "who are you"}',
        b'{"metadata": {"resourceVersion": ""}, "items": []}',
        b'{"metadata": {"resourceVersion": "1"}, "items": [',
        b'\xff{"metadata": {"resourceVersion": "1"}}',
    ],
)
def test_what_is_no_list_never_passes_for_an_empty_one(body: bytes) -> None:
    with pytest.raises(Unreachable, match=r"^list pods in monitoring: this is no answer of a"):
        read_page(Pod, body, WHAT)


@pytest.mark.parametrize("body", [b"{}", b"<html>", b'{"metadata": {"name": "x"}}', b'{"a"'])
def test_what_is_no_object_never_passes_for_one(body: bytes) -> None:
    with pytest.raises(Unreachable, match=r"^get pod a/b: this is no answer of a Kubernetes API"):
        read_object(Pod, body, "get pod a/b")


@pytest.mark.parametrize("items", ["null", "[]"])
def test_an_empty_list_is_one(items: str) -> None:
    body = b'{"metadata": {"resourceVersion": "9"}, "items": ' + items.encode() + b"}"

    page = read_page(Pod, body, WHAT)

    assert not page.items
    assert page.metadata.resource_version == "9"


def test_an_object_that_is_not_as_opsd_knows_it_is_named_with_its_field() -> None:
    good = {"metadata": {"namespace": "db", "name": "good"}}
    odd = {"metadata": {"namespace": "db", "name": "odd"}, "spec": {"replicas": "two"}}
    body = json.dumps({"metadata": {"resourceVersion": "9"}, "items": [good, odd]}).encode()

    with pytest.raises(Refused, match=r"db/odd: Expected `int`, got `str` - at `\$\.spec\.repl"):
        read_page(StatefulSet, body, "list statefulsets")


def test_an_odd_single_object_is_told_too() -> None:
    with pytest.raises(Refused, match="get pod a/b: unexpected answer: Expected `object`"):
        read_object(Pod, b'{"metadata": {"uid": "1"}, "spec": 3}', "get pod a/b")


def test_of_a_health_check_only_what_failed_is_told() -> None:
    lines = ["[+]ping ok", "[-]etcd failed: reason withheld", "[+]log ok", "readyz check failed"]
    answer = Answer(status=500, body="\n".join(lines).encode(), content_type="text/plain")

    with pytest.raises(Unreachable, match=r": 500: \[-\]etcd failed: reason withheld$"):
        raise_for(answer, "get /readyz")
