"""A whole run with an S3 repository that fails as such servers fail, beside one that works."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from opsd.model import Outcome
from tests.faults import s3front
from tests.faults.s3front import Action, Rule, S3Front
from tests.rig import scratch
from tests.rig.home import Home
from tests.rig.postgres import PgServer
from tests.rig.s3 import S3Server

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

DATABASE = "database/main/offsite_faults"
# More than two parts of 8 MiB that no compression makes smaller.
NOISE = """
CREATE TABLE noise AS SELECT i, decode(string_agg(md5(random()::text || j), ''), 'hex') AS bytes
    FROM generate_series(1, 1300) i, generate_series(1, 1000) j GROUP BY i;
"""

SURVIVED = {
    "one internal error": Rule(action=s3front.INTERNAL_ERROR, method="PUT", times=1),
    "a part refused once": Rule(action=s3front.SLOW_DOWN, target="partNumber=2", times=1),
    "a part cut once": Rule(action=Action.CUT_REQUEST, target="partNumber=2", times=1),
    "a completion done, its reply lost": Rule(
        action=Action.LOSE_REPLY, method="POST", target="uploadId=", times=1
    ),
    "a manifest stored, its reply lost": Rule(
        action=Action.LOSE_REPLY, method="PUT", target=r"Z\.json", times=1
    ),
}
FAILING = {
    "nothing but errors": Rule(action=s3front.INTERNAL_ERROR, method="PUT|POST"),
    "always asked to slow down": Rule(action=s3front.SLOW_DOWN, method="PUT|POST"),
    "a part never arrives": Rule(action=Action.CUT_REQUEST, target="partNumber=2"),
    "a clock that is off": Rule(action=s3front.TIME_SKEWED),
    "writing forbidden": Rule(action=s3front.ACCESS_DENIED, method="PUT|POST"),
    "a completion answered with an error in a 200": Rule(
        action=s3front.OK_WITH_ERROR, method="POST", target="uploadId="
    ),
    "a bit flipped on the way back": Rule(
        action=Action.CORRUPT_REPLY, method="GET", target=r"\.dump"
    ),
}


@pytest.fixture(scope="module")
def front(s3_server: S3Server) -> Iterator[S3Front]:
    with s3front.in_front_of(s3_server.port) as running:
        yield running


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> str:
    return s3_server.make_bucket()


@pytest.fixture(scope="module")
def home(pg: PgServer, s3_server: S3Server, front: S3Front, bucket: str) -> Iterator[Home]:
    """An installation whose backups go to a disk and through the front to S3."""
    with scratch.directory("offsite") as place:
        home = Home(place=place, is_measured=False)
        pg.create_database("offsite_faults")
        pg.execute(NOISE, "offsite_faults")
        home.write(
            home.bucket(s3_server, endpoint=front.url, bucket=bucket),
            home.postgres(pg, repositories=("disk", "offsite"), databases=["offsite_faults"]),
        )
        assert run(home)[0] == 0
        yield home


@pytest.fixture(autouse=True)
def healthy(front: S3Front) -> Iterator[None]:
    front.fail()
    yield
    front.fail()


def offsite(s3_server: S3Server, bucket: str) -> tuple[set[str], set[str], int]:
    """(keys of dumps, keys that manifests name, open uploads), from the bucket itself."""
    client = s3_server.client()
    listed = client.list_objects_v2(Bucket=bucket, Prefix=DATABASE).get("Contents", [])
    keys = {entry["Key"] for entry in listed}
    manifests = [key for key in keys if key.endswith("Z.json")]
    named = {
        json.loads(client.get_object(Bucket=bucket, Key=key)["Body"].read())["key"]
        for key in manifests
    }
    uploads = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return {key for key in keys if not key.endswith(".json")}, named, len(uploads)


def run(home: Home) -> tuple[int, dict[str, object]]:
    done = home.opsd("run-job", "postgres-backup", "-o", "json")
    [run] = done.json["runs"]
    return done.status, run


@pytest.mark.parametrize("rule", SURVIVED.values(), ids=SURVIVED)
def test_a_passing_fault_is_survived(
    home: Home, front: S3Front, s3_server: S3Server, bucket: str, rule: Rule
) -> None:
    front.fail(rule)
    struck = front.struck

    status, ended = run(home)

    assert front.struck > struck
    assert (status, ended["outcome"]) == (0, "completed")
    dumps, named, uploads = offsite(s3_server, bucket)
    assert (dumps - named, named - dumps, uploads) == (set(), set(), 0)


@pytest.mark.parametrize("rule", FAILING.values(), ids=FAILING)
def test_a_lasting_fault_fails_the_run_and_spares_the_other_repository(
    home: Home, front: S3Front, s3_server: S3Server, bucket: str, rule: Rule
) -> None:
    _, good_before, _ = offsite(s3_server, bucket)
    on_disk = set(home.repository.rglob("*Z.json"))
    front.fail(rule)
    struck = front.struck

    status, ended = run(home)
    front.fail()

    assert front.struck > struck
    assert (status, ended["outcome"]) == (1, "failed")
    _, named, _ = offsite(s3_server, bucket)
    assert named == good_before, "no new backup, and no older one lost"
    if rule.action is not s3front.TIME_SKEWED:  # then it is not even known what is there
        assert set(home.repository.rglob("*Z.json")) - on_disk, "the disk has its backup"
    assert run(home)[0] == 0
    dumps, named, uploads = offsite(s3_server, bucket)
    assert (dumps - named, uploads) == (set(), 0), "the next run cleaned up"


def test_a_server_that_never_answers_ends_the_run_at_its_deadline(
    home: Home, front: S3Front, s3_server: S3Server, bucket: str
) -> None:
    config = home.config.read_text()
    home.config.write_text(config.replace('timeout = "2m"', 'timeout = "8s"'))
    front.fail(Rule(action=Action.HANG, method="PUT|POST"))

    status, ended = run(home)

    home.config.write_text(config)
    front.fail()
    assert (status, ended["outcome"]) == (1, "timed_out")
    assert home.runs("postgres-backup")[0].outcome is Outcome.TIMED_OUT
    assert run(home)[0] == 0
    dumps, named, uploads = offsite(s3_server, bucket)
    assert (dumps - named, uploads) == (set(), 0)


def test_wrong_keys_are_told_with_what_to_do(home: Home) -> None:
    right = home.environment["CANARY_S3_SECRET"]
    home.environment["CANARY_S3_SECRET"] = "canary-wrong-secret"

    done = home.opsd("run-job", "postgres-backup")

    home.environment["CANARY_S3_SECRET"] = right
    assert done.status == 1
    assert "the secret key does not belong to the access key" in done.out
    assert "canary-wrong-secret" not in done.out + done.err
