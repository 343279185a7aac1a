from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import pytest

from opsd.backup.catalog import publish, read_catalog
from opsd.backup.delivery import Corrupted, Order, deliver
from opsd.backup.manifest import Level, Manifest, Verification, data_key
from opsd.backup.repository import Repository, StoredObject, Upload
from opsd.backup.stream import (
    Fanout,
    Incomplete,
    NoRepositoryLeft,
    ScriptCheck,
    SourceFailed,
    Write,
    output_of,
)
from opsd.clients.process import Process
from opsd.clock import Deadline, SystemClock
from opsd.errors import TransientError
from opsd.progress import NoProgress
from opsd.testing import MemoryRepository

SLOT = datetime(2026, 11, 22, 3, tzinfo=UTC)
SUBJECT = "globals/main"
END = b"\n-- PostgreSQL database cluster dump complete\n--\n"
SCRIPT = b"--\nCREATE ROLE app;\n" + END


class Refusing(MemoryRepository):
    """Takes no upload at all."""

    def upload(self, key: str, *, run_id: str, size_hint: int = 0) -> Upload:  # noqa: ARG002
        raise TransientError(f"{self.name}: {key}: refused")


class Forgetful(MemoryRepository):
    """Loses the answer to every manifest."""

    def create(self, key: str, content: bytes) -> None:
        super().create(key, content)
        raise TransientError(f"{self.name}: {key}: the reply was lost")


class Rotting(MemoryRepository):
    """Returns other bytes than it was given."""

    def read(self, key: str) -> Iterator[bytes]:
        for piece in super().read(key):
            yield bytes([piece[0] ^ 1]) + piece[1:] if key.endswith(".sql") else piece


def order(repositories: Sequence[Repository], run_id: str = "0123456789ab") -> Order:
    return Order(
        kind="pg_globals",
        subject=SUBJECT,
        slot=SLOT,
        run_id=run_id,
        suffix=".sql",
        repositories=repositories,
        recipients=(),
        size_hint=0,
        deadline=Deadline.after(30, SystemClock()),
        progress=NoProgress(),
    )


def writes(content: bytes) -> Callable[[Write], dict[str, object]]:
    def produce(write: Write) -> dict[str, object]:
        check = ScriptCheck()
        check.feed(content)
        write(content)
        check.finish()
        return {"server": "main"}

    return produce


def deadline() -> Deadline:
    return Deadline.after(30, SystemClock())


def objects(repository: MemoryRepository) -> list[StoredObject]:
    return list(repository.list(""))


def test_a_delivery_is_published_with_its_proofs_in_every_repository() -> None:
    repositories = [MemoryRepository("a"), MemoryRepository("b")]

    delivery = deliver(order(repositories), writes(SCRIPT))

    assert set(delivery.published) == {"a", "b"}
    for repository in repositories:
        [backup] = read_catalog(repository).backups
        assert backup.level is Level.PARSED
        assert backup.manifest.sha256 == hashlib.sha256(SCRIPT).hexdigest()


@pytest.mark.parametrize("script", [b"", SCRIPT[: -len(END)], SCRIPT[:-10]])
def test_a_script_without_its_closing_line_is_taken_away_everywhere(script: bytes) -> None:
    repositories = [MemoryRepository("a"), MemoryRepository("b")]

    with pytest.raises(Incomplete):
        deliver(order(repositories), writes(script))

    assert [objects(one) for one in repositories] == [[], []]


def test_a_closing_line_is_found_also_across_pieces() -> None:
    check = ScriptCheck()

    for byte in SCRIPT:
        check.feed(bytes([byte]))

    check.finish()


def test_what_fails_on_the_way_leaves_nothing_and_comes_out_as_it_is() -> None:
    repository = MemoryRepository()

    def produce(write: Write) -> dict[str, object]:
        write(SCRIPT)
        raise SourceFailed("pg_dumpall: killed", stderr="")

    with pytest.raises(SourceFailed, match="killed"):
        deliver(order([repository]), produce)

    assert objects(repository) == []
    assert not list(repository.unfinished(""))


def test_one_refusing_repository_does_not_stop_the_other() -> None:
    good, refusing = MemoryRepository("good"), Refusing("refusing")

    delivery = deliver(order([refusing, good]), writes(SCRIPT))

    assert set(delivery.published) == {"good"}
    assert "refused" in str(delivery.failures["refusing"])


def test_with_no_repository_left_the_source_is_stopped() -> None:
    with (
        Fanout([Refusing("a")], "globals/x", run_id="0") as fanout,
        pytest.raises(NoRepositoryLeft),
    ):
        fanout.write(b"x")


def test_all_repositories_failing_is_told_and_is_no_error() -> None:
    delivery = deliver(order([Refusing("a"), Refusing("b")]), writes(SCRIPT))

    assert set(delivery.failures) == {"a", "b"}
    assert not delivery.published


def test_different_bytes_are_deleted_and_the_other_repository_is_still_parsed() -> None:
    rotting, good = Rotting("rotting"), MemoryRepository("good")

    delivery = deliver(order([rotting, good]), writes(SCRIPT))

    assert isinstance(delivery.failures["rotting"], Corrupted)
    assert objects(rotting) == []
    assert delivery.published["good"].manifest.verified[-1].level == "parsed"


def test_a_result_that_stands_already_is_kept_and_ours_taken_away() -> None:
    repository = MemoryRepository()
    others = Manifest(
        kind="pg_globals",
        subject=SUBJECT,
        slot=SLOT,
        run_id="other0000000",
        created_at=SLOT,
        key=data_key(SUBJECT, SLOT, "other0000000", ".sql"),
        size_bytes=1,
        sha256="0" * 64,
        verified=(Verification(level="read_back", at=SLOT, ok=True),),
    )
    repository.create(others.key, b"x")
    publish(repository, others)

    delivery = deliver(order([repository]), writes(SCRIPT))

    assert delivery.already == {"memory"}
    assert not delivery.failures
    [backup] = read_catalog(repository).backups
    assert backup.manifest.run_id == "other0000000"
    assert len(objects(repository)) == 2


def test_a_lost_reply_to_the_manifest_never_costs_the_data() -> None:
    repository = Forgetful()

    delivery = deliver(order([repository]), writes(SCRIPT))

    assert "reply was lost" in str(delivery.failures["memory"])
    [backup] = read_catalog(repository).backups
    assert backup.condition == "good"


@pytest.mark.parametrize("status", [0, 1])
def test_a_stream_ends_only_if_its_program_ended_well(status: int) -> None:
    argv = ["/bin/sh", "-c", f"echo data; echo why >&2; exit {status}"]
    with Process(argv, deadline=deadline()) as process:
        read = output_of(process)
        assert read(100) == b"data\n"

        if status == 0:
            assert read(100) == b""
        else:
            with pytest.raises(SourceFailed, match="why"):
                read(100)
