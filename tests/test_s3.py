"""What networks and servers do to an upload never makes half a backup or two of them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from opsd.backup import s3
from opsd.backup.repository import AlreadyExists
from opsd.backup.s3 import S3Repository, part_bytes
from opsd.clients import s3 as client
from opsd.clients.s3 import Bucket, BucketSettings
from opsd.errors import OpsdError, PermanentError, TransientError
from opsd.secrets import Secret
from opsd.testing import RUN_ID
from tests.faults import s3front
from tests.faults.s3front import Action, Rule, S3Front
from tests.rig.repositories import bucket_settings, s3_repository
from tests.rig.s3 import S3Server
from tests.rig.server import free_port

MIB = 1 << 20
KEY = "database/main/app/20261122T030000Z-0123456789ab.dump"
CONTENT = bytes(range(256)) * (17 * MIB // 256)

REPEATED = ("SlowDown", "InternalError", "ServiceUnavailable")

pytestmark = pytest.mark.real


@pytest.fixture
def front(s3_server: S3Server) -> Iterator[S3Front]:
    with s3front.in_front_of(s3_server.port) as front:
        yield front


@pytest.fixture
def repository(s3_server: S3Server, front: S3Front, tmp_path: Path) -> S3Repository:
    return s3_repository(s3_server, tmp_path, endpoint=front.url)


@pytest.fixture(autouse=True)
def no_pause_before_another_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    backoff = "botocore.retries.standard.ExponentialBackoff"
    monkeypatch.setattr(f"{backoff}.delay_amount", lambda *_: 0)


def put(repository: S3Repository, content: bytes) -> None:
    upload = repository.upload(KEY, run_id=RUN_ID)
    try:
        upload.write(content)
        upload.commit()
    finally:
        upload.abort()


def get(repository: S3Repository) -> bytes:
    return b"".join(repository.read(KEY))


def left(repository: S3Repository) -> list[str]:
    return [
        *(entry.key for entry in repository.list("")),
        *(entry.key for entry in repository.unfinished("")),
    ]


def test_an_upload_whose_completion_was_done_but_not_answered_is_there(
    repository: S3Repository, front: S3Front
) -> None:
    front.fail(Rule(method="POST", target="uploadId=", action=Action.LOSE_REPLY, times=1))

    put(repository, CONTENT)

    assert get(repository) == CONTENT
    assert left(repository) == [KEY]


def test_an_upload_whose_completion_is_never_answered_is_there(
    repository: S3Repository, front: S3Front
) -> None:
    front.fail(Rule(method="POST", target="uploadId=", action=Action.LOSE_REPLY))

    put(repository, CONTENT)

    assert get(repository) == CONTENT
    assert left(repository) == [KEY]


@pytest.mark.parametrize("times", [1, 4])
def test_a_small_object_whose_reply_was_lost_is_there(
    repository: S3Repository, front: S3Front, times: int
) -> None:
    front.fail(Rule(method="PUT", action=Action.LOSE_REPLY, times=times))

    put(repository, b"small")

    assert get(repository) == b"small"


def test_creating_after_a_lost_reply_is_fine(repository: S3Repository, front: S3Front) -> None:
    front.fail(Rule(method="PUT", action=Action.LOSE_REPLY, times=1))

    repository.create(KEY, b"manifest")

    assert get(repository) == b"manifest"


def test_a_few_refusals_are_survived(repository: S3Repository, front: S3Front) -> None:
    front.fail(Rule(method="PUT", target="partNumber=2", action=s3front.SLOW_DOWN, times=2))

    put(repository, CONTENT)

    assert get(repository) == CONTENT


@pytest.mark.parametrize(
    ("part", "status", "code"),
    [
        *((1, 503, "SlowDown"), (2, 500, "InternalError"), (3, 503, "ServiceUnavailable")),
        *((1, 507, "QuotaExceeded"), (2, 403, "AccessDenied"), (3, 400, "EntityTooSmall")),
    ],
)
def test_a_part_that_is_refused_for_good_fails_the_upload_and_leaves_nothing(
    repository: S3Repository, front: S3Front, part: int, status: int, code: str
) -> None:
    front.fail(Rule(method="PUT", target=f"partNumber={part}", action=s3front.error(status, code)))

    with pytest.raises(OpsdError, match=code) as caught:
        put(repository, CONTENT)

    assert isinstance(caught.value, TransientError if code in REPEATED else PermanentError)
    assert left(repository) == []


@pytest.mark.parametrize("action", [Action.LOSE_REPLY, Action.CORRUPT_REQUEST])
def test_a_part_that_never_arrives_whole_fails_the_upload_and_leaves_nothing(
    repository: S3Repository, front: S3Front, action: Action
) -> None:
    front.fail(Rule(method="PUT", target="partNumber=2", action=action))

    with pytest.raises(OpsdError, match="part 2"):
        put(repository, CONTENT)

    assert left(repository) == []


def test_a_server_that_fails_while_completing_and_has_nothing_is_an_error(
    repository: S3Repository, front: S3Front
) -> None:
    front.fail(Rule(method="POST", target="uploadId=", action=s3front.INTERNAL_ERROR))

    with pytest.raises(TransientError, match="complete"):
        put(repository, CONTENT)

    assert left(repository) == []


def test_a_server_that_never_answers_is_given_up(
    repository: S3Repository, front: S3Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "READ_TIMEOUT_S", 0.3)
    front.fail(Rule(method="PUT", action=Action.HANG))

    with pytest.raises(TransientError, match="up and reachable"):
        put(repository, b"small")


@pytest.mark.parametrize("times", [1, 3])
def test_reading_goes_on_where_it_was_cut(
    repository: S3Repository, front: S3Front, times: int
) -> None:
    put(repository, CONTENT)
    front.fail(
        Rule(
            method="GET", target=KEY, action=Action.CUT_REPLY, keep_bytes=3 * MIB + 5, times=times
        )
    )

    assert get(repository) == CONTENT


def test_reading_that_is_always_cut_is_an_error_and_never_a_short_object(
    repository: S3Repository, front: S3Front
) -> None:
    put(repository, CONTENT)
    front.fail(Rule(method="GET", target=KEY, action=Action.CUT_REPLY, keep_bytes=MIB))

    with pytest.raises(TransientError, match="read"):
        get(repository)


def test_where_conditions_are_unknown_a_taken_key_is_still_refused(
    repository: S3Repository, front: S3Front
) -> None:
    front.fail(Rule(method="PUT|POST", header="If-None-Match", action=s3front.NOT_IMPLEMENTED))

    put(repository, CONTENT)
    with pytest.raises(AlreadyExists):
        put(repository, CONTENT[:-1])
    with pytest.raises(AlreadyExists):
        put(repository, b"small")

    assert get(repository) == CONTENT
    assert left(repository) == [KEY]


def test_where_uploads_cannot_be_listed_none_are_told(
    repository: S3Repository, front: S3Front
) -> None:
    front.fail(Rule(method="GET", target="uploads", action=s3front.NOT_IMPLEMENTED))

    assert list(repository.unfinished("")) == []


@pytest.mark.parametrize(
    ("status", "code", "kind", "remedy"),
    [
        (403, "AccessDenied", PermanentError, "docs/repositories.md"),
        (403, "RequestTimeTooSkewed", TransientError, "clock"),
        (400, "ExpiredToken", PermanentError, "expired"),
        (404, "NoSuchBucket", PermanentError, "create the bucket"),
        (400, "AuthorizationHeaderMalformed", PermanentError, "region"),
        (403, "InvalidObjectState", PermanentError, "storage_class"),
        (409, "ConditionalRequestConflict", TransientError, "on purpose"),
        (400, "SomethingNew", PermanentError, "SomethingNew"),
    ],
)
def test_what_the_server_says_becomes_an_error_with_a_remedy(
    repository: S3Repository,
    front: S3Front,
    *,
    status: int,
    code: str,
    kind: type[OpsdError],
    remedy: str,
) -> None:
    front.fail(Rule(method="PUT|GET", action=s3front.error(status, code)))

    with pytest.raises(kind, match=remedy) as caught:
        put(repository, b"small")

    assert "offsite" in str(caught.value)
    assert KEY in str(caught.value)


def opened(settings: BucketSettings) -> S3Repository:
    return S3Repository("offsite", Bucket("offsite", settings))


def refused(settings: BucketSettings) -> OpsdError:
    with pytest.raises(OpsdError) as caught:
        put(opened(settings), b"small")
    with pytest.raises(OpsdError):
        list(opened(settings).list(""))
    return caught.value


def test_a_wrong_secret_key_is_told_and_not_shown(s3_server: S3Server, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("canary-wrong-secret")
    settings = bucket_settings(s3_server, tmp_path)

    error = refused(dataclasses.replace(settings, secret_key=Secret(f"file:{wrong}")))

    assert isinstance(error, PermanentError)
    assert "secret key does not belong" in str(error)
    assert "canary" not in str(error)


def test_an_unknown_access_key_is_told(s3_server: S3Server, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("nobody-knows-this")
    settings = bucket_settings(s3_server, tmp_path)

    error = refused(dataclasses.replace(settings, access_key=Secret(f"file:{wrong}")))

    assert isinstance(error, PermanentError)
    assert "does not know this access key" in str(error)


def test_a_server_that_is_down_is_a_passing_error(s3_server: S3Server, tmp_path: Path) -> None:
    settings = bucket_settings(s3_server, tmp_path)
    endpoint = f"http://127.0.0.1:{free_port()}"

    error = refused(dataclasses.replace(settings, endpoint=endpoint))

    assert isinstance(error, TransientError)
    assert endpoint in str(error)


def test_something_that_is_no_s3_server_is_told(
    s3_server: S3Server, front: S3Front, tmp_path: Path
) -> None:
    front.fail(Rule(method="GET", action=s3front.WEB_PAGE))
    settings = bucket_settings(s3_server, tmp_path, endpoint=front.url)

    with pytest.raises(OpsdError, match="check endpoint"):
        list(opened(settings).list(""))


@pytest.mark.parametrize("endpoint", ["http://", "ftp//nowhere", "http://a b"])
def test_an_endpoint_that_is_none_is_told(
    s3_server: S3Server, tmp_path: Path, endpoint: str
) -> None:
    settings = dataclasses.replace(bucket_settings(s3_server, tmp_path), endpoint=endpoint)

    with pytest.raises(PermanentError, match="correct endpoint"):
        put(opened(settings), b"small")


def test_other_peoples_objects_are_not_listed(s3_server: S3Server, tmp_path: Path) -> None:
    settings = bucket_settings(s3_server, tmp_path)
    plain = s3_server.client()
    for key in ("top", "home/opsd-other/x", "home/opsd/a b", "home/opsd/.hidden", "home/opsd/ok"):
        plain.put_object(Bucket=settings.bucket, Key=key, Body=b"x")
    repository = S3Repository("offsite", Bucket("offsite", settings), prefix="home/opsd")

    assert [entry.key for entry in repository.list("")] == ["ok"]


def test_a_listing_goes_over_many_pages(s3_server: S3Server, tmp_path: Path) -> None:
    settings = bucket_settings(s3_server, tmp_path)
    plain = s3_server.client()

    def make(number: int) -> None:
        plain.put_object(Bucket=settings.bucket, Key=f"many/{number:05}", Body=b"x")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(1005)))

    keys = [entry.key for entry in opened(settings).list("many/")]

    assert keys == [f"many/{number:05}" for number in range(1005)]


def test_what_object_lock_keeps_is_told_with_its_date(s3_server: S3Server, tmp_path: Path) -> None:
    settings = bucket_settings(s3_server, tmp_path, lock=True)
    settings = dataclasses.replace(settings, lock=timedelta(days=3))
    bucket = Bucket("offsite", settings)
    put(S3Repository("offsite", bucket), CONTENT)

    head = bucket.head(KEY)

    assert head is not None
    assert head.locked_until is not None
    versions = s3_server.client().list_object_versions(Bucket=settings.bucket)["Versions"]
    with pytest.raises(Exception, match="AccessDenied"):
        s3_server.client().delete_object(
            Bucket=settings.bucket, Key=KEY, VersionId=versions[0]["VersionId"]
        )


def test_a_deletion_that_object_lock_refuses_says_until_when(
    s3_server: S3Server, front: S3Front, tmp_path: Path
) -> None:
    settings = bucket_settings(s3_server, tmp_path, endpoint=front.url, lock=True)
    repository = opened(dataclasses.replace(settings, lock=timedelta(days=3)))
    put(repository, b"small")
    front.fail(Rule(method="DELETE", action=s3front.ACCESS_DENIED))

    with pytest.raises(PermanentError, match=r"Object Lock keeps it until \d{4}-"):
        repository.delete(KEY)


def test_a_refused_deletion_without_lock_names_the_missing_right(
    repository: S3Repository, front: S3Front
) -> None:
    put(repository, b"small")
    front.fail(Rule(method="DELETE", action=s3front.ACCESS_DENIED))

    with pytest.raises(PermanentError, match="docs/repositories"):
        repository.delete(KEY)


def test_the_newer_checksums_are_sent_only_when_asked_for(
    s3_server: S3Server, tmp_path: Path
) -> None:
    settings = bucket_settings(s3_server, tmp_path)

    put(opened(dataclasses.replace(settings, checksums="always")), CONTENT)

    assert get(opened(settings)) == CONTENT


LARGEST_HINT_FOR_SMALLEST_PART = 8 * MIB * 9000 * 10 // 12


@pytest.mark.parametrize(
    ("hint", "size"),
    [
        (0, 8 * MIB),
        (LARGEST_HINT_FOR_SMALLEST_PART, 8 * MIB),
        (LARGEST_HINT_FOR_SMALLEST_PART + 7500, 8 * MIB + 1),
        (1 << 40, 146_601_551),
    ],
)
def test_parts_grow_so_that_their_number_suffices(hint: int, size: int) -> None:
    assert part_bytes(hint) == size
    assert hint <= size * s3.PARTS_FOR_HINT


@pytest.mark.parametrize(("size", "fits"), [(16 * MIB, True), (16 * MIB + 1, False)])
def test_an_object_of_too_many_parts_is_refused(
    repository: S3Repository, monkeypatch: pytest.MonkeyPatch, size: int, *, fits: bool
) -> None:
    monkeypatch.setattr(s3, "MOST_PARTS", 2)

    if fits:
        put(repository, CONTENT[:size])
    else:
        with pytest.raises(PermanentError, match="2 parts"):
            put(repository, CONTENT[:size])

    assert left(repository) == ([KEY] if fits else [])


MEMORY_PROBE = """
import resource, sys, threading
from pathlib import Path
from opsd.backup.s3 import S3Repository
from opsd.clients.s3 import Bucket, BucketSettings
from opsd.secrets import Secret

endpoint, bucket, access_key, secret_key, mib = sys.argv[1:]
settings = BucketSettings(bucket=bucket, endpoint=endpoint, region="us-east-1",
    access_key=Secret(access_key), secret_key=Secret(secret_key))
repository = S3Repository("offsite", Bucket("offsite", settings))
repository.create("first", b"x")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def put(number):
    upload, piece = repository.upload(f"many/{number}", run_id="0"), bytes(1 << 18)
    for _ in range(int(mib) * 4):
        upload.write(piece)
    upload.commit()
threads = [threading.Thread(target=put, args=(number,)) for number in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_two_uploads_at_once_take_bounded_memory(s3_server: S3Server, tmp_path: Path) -> None:
    settings = bucket_settings(s3_server, tmp_path)
    arguments = [settings.endpoint, settings.bucket]

    ran = subprocess.run(
        [
            *(sys.executable, "-c", MEMORY_PROBE, *arguments),
            *(str(settings.access_key), str(settings.secret_key), "70"),
        ],
        capture_output=True,
        check=True,
        text=True,
    )

    assert int(ran.stdout) < 85 * 1024  # KiB: 64 MiB of parts, and the connections


def test_the_library_is_loaded_only_when_a_bucket_is_used() -> None:
    code = "import opsd.backup.opening, sys; sys.exit('boto3' in sys.modules)"

    ran = subprocess.run([sys.executable, "-c", code], check=False)

    assert ran.returncode == 0
