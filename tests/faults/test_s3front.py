"""The S3 front fails as told, and is invisible otherwise, for a signing client."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError, ReadTimeoutError
from botocore.exceptions import ConnectionError as BrokenConnection

from tests.faults import s3front
from tests.faults.s3front import Action, Answer, Rule, S3Front
from tests.rig.s3 import S3Server

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

pytestmark = pytest.mark.real
BODY = bytes(range(256)) * 1024


@pytest.fixture
def front(s3_server: S3Server) -> Iterator[S3Front]:
    with s3front.in_front_of(s3_server.port) as running:
        yield running


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    return s3_server.make_bucket()


@pytest.fixture
def client(front: S3Front, s3_server: S3Server) -> S3Client:
    """A client that tries once and waits a second, so that each fault is seen."""
    config = Config(retries={"total_max_attempts": 1}, read_timeout=1)
    return boto3.client(
        "s3",
        endpoint_url=front.url,
        aws_access_key_id=s3_server.access_key,
        aws_secret_access_key=s3_server.secret_key,
        region_name=s3_server.region,
        config=config,
    )


def test_without_a_rule_signed_requests_pass(client: S3Client, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="a key/ü+&.dump", Body=BODY)

    stored = client.get_object(Bucket=bucket, Key="a key/ü+&.dump")
    listed = client.list_objects_v2(Bucket=bucket)

    assert stored["Body"].read() == BODY
    assert [entry["Key"] for entry in listed["Contents"]] == ["a key/ü+&.dump"]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (s3front.INTERNAL_ERROR, "InternalError"),
        (s3front.SLOW_DOWN, "SlowDown"),
        (s3front.TIME_SKEWED, "RequestTimeTooSkewed"),
        (s3front.ACCESS_DENIED, "AccessDenied"),
    ],
)
def test_an_error_is_answered_and_nothing_is_stored(
    front: S3Front, client: S3Client, bucket: str, answer: Answer, code: str
) -> None:
    front.fail(Rule(action=answer, method="PUT", target="/k$"))

    with pytest.raises(ClientError, match=code):
        client.put_object(Bucket=bucket, Key="k", Body=BODY)

    assert "Contents" not in client.list_objects_v2(Bucket=bucket)


def test_only_the_kth_matching_requests_fail(
    front: S3Front, client: S3Client, bucket: str
) -> None:
    front.fail(Rule(action=s3front.INTERNAL_ERROR, method="PUT", nth=2, times=1))

    client.put_object(Bucket=bucket, Key="1", Body=b"")
    with pytest.raises(ClientError, match="InternalError"):
        client.put_object(Bucket=bucket, Key="2", Body=b"")
    client.put_object(Bucket=bucket, Key="3", Body=b"")

    assert front.struck == 1
    assert [seen.status for seen in front.seen] == [200, 500, 200]


def test_a_hanging_request_runs_into_the_timeout(
    front: S3Front, client: S3Client, bucket: str
) -> None:
    front.fail(Rule(action=Action.HANG))

    with pytest.raises(ReadTimeoutError):
        client.put_object(Bucket=bucket, Key="k", Body=BODY)


def test_a_cut_request_stores_nothing(front: S3Front, client: S3Client, bucket: str) -> None:
    front.fail(Rule(action=Action.CUT_REQUEST, method="PUT", times=1))

    with pytest.raises((BrokenConnection, HTTPClientError)):
        client.put_object(Bucket=bucket, Key="k", Body=BODY)

    assert "Contents" not in client.list_objects_v2(Bucket=bucket)


def test_a_lost_reply_leaves_the_object_stored(
    front: S3Front, client: S3Client, bucket: str
) -> None:
    front.fail(Rule(action=Action.LOSE_REPLY, method="PUT", times=1))

    with pytest.raises((BrokenConnection, HTTPClientError)):
        client.put_object(Bucket=bucket, Key="k", Body=BODY)

    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == BODY


def test_a_cut_reply_is_shorter_than_it_said(
    front: S3Front, client: S3Client, bucket: str
) -> None:
    client.put_object(Bucket=bucket, Key="k", Body=BODY)
    front.fail(Rule(action=Action.CUT_REPLY, method="GET"))

    with pytest.raises((BrokenConnection, HTTPClientError)):
        client.get_object(Bucket=bucket, Key="k")["Body"].read()


def test_a_corrupted_reply_differs_in_one_byte(s3_server: S3Server, bucket: str) -> None:
    with s3front.in_front_of(s3_server.port) as front:
        client = s3_server.client(endpoint=front.url)
        # Without a stored checksum the client cannot notice, which is what this fault is for.
        upload = client.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
        part = client.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=BODY)
        client.complete_multipart_upload(
            Bucket=bucket,
            Key="k",
            UploadId=upload,
            MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
        )
        front.fail(Rule(action=Action.CORRUPT_REPLY, method="GET"))

        got = client.get_object(Bucket=bucket, Key="k")["Body"].read()

    assert sum(a != b for a, b in zip(got, BODY, strict=True)) == 1


def test_a_request_with_a_wrong_bit_is_stored_so_unless_the_client_sent_its_checksum(
    front: S3Front, client: S3Client, bucket: str
) -> None:
    front.fail(Rule(action=Action.CORRUPT_REQUEST, method="PUT"))
    digest = base64.b64encode(hashlib.md5(BODY, usedforsecurity=False).digest()).decode()

    with pytest.raises(ClientError, match="BadDigest"):
        client.put_object(Bucket=bucket, Key="k", Body=BODY, ContentMD5=digest)

    assert "Contents" not in client.list_objects_v2(Bucket=bucket)


def test_a_reply_can_be_cut_at_a_byte(front: S3Front, client: S3Client, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="k", Body=BODY)
    front.fail(Rule(action=Action.CUT_REPLY, method="GET", keep_bytes=5))

    stream = client.get_object(Bucket=bucket, Key="k")["Body"]

    assert stream.read(5) == BODY[:5]
    with pytest.raises((BrokenConnection, HTTPClientError)):
        stream.read()


def test_only_requests_with_the_header_fail(front: S3Front, client: S3Client, bucket: str) -> None:
    front.fail(Rule(action=s3front.NOT_IMPLEMENTED, header="If-None-Match"))

    client.put_object(Bucket=bucket, Key="k", Body=BODY)
    with pytest.raises(ClientError, match="NotImplemented"):
        client.put_object(Bucket=bucket, Key="k", Body=BODY, IfNoneMatch="*")

    assert [seen.status for seen in front.seen] == [200, 501]


def test_the_first_rule_that_strikes_wins(front: S3Front, client: S3Client, bucket: str) -> None:
    front.fail(
        Rule(action=s3front.SLOW_DOWN, method="PUT", times=1),
        Rule(action=s3front.error(400, "ExpiredToken"), method="PUT"),
    )

    for code in ("SlowDown", "ExpiredToken"):
        with pytest.raises(ClientError, match=code):
            client.put_object(Bucket=bucket, Key="k", Body=BODY)


def test_a_web_page_is_answered_where_a_listing_was_asked_for(
    front: S3Front, client: S3Client, bucket: str
) -> None:
    front.fail(Rule(action=s3front.WEB_PAGE, method="GET"))

    with pytest.raises(ClientError, match=r"\(500\)"):  # what the library makes of it
        client.list_objects_v2(Bucket=bucket)


def test_a_completed_upload_can_be_answered_with_an_error_in_a_200(
    front: S3Front, client: S3Client, bucket: str
) -> None:
    front.fail(Rule(action=s3front.OK_WITH_ERROR, method="POST", target="uploadId="))
    upload = client.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    part = client.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=BODY)

    with pytest.raises(ClientError, match="InternalError"):
        client.complete_multipart_upload(
            Bucket=bucket,
            Key="k",
            UploadId=upload,
            MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
        )
