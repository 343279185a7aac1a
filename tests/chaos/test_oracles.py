"""Every oracle sees the damage that it is for: an oracle that cannot complain proves nothing."""

from __future__ import annotations

import contextlib
import functools
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsd.model import Run
from tests.chaos import forks, oracles
from tests.chaos.lives import TICK, Life, Step, live
from tests.chaos.oracles import Witness, gather, judge
from tests.chaos.world import CANARY, SUBJECTS, Weather, World
from tests.rig import scratch

BEGIN = datetime(2027, 3, 1, 12, tzinfo=UTC)
DAYS = 5
SIX_HOURS = Step(passes=timedelta(hours=6))
FAILING = Weather(failing=("nightly",))
END = BEGIN + DAYS * timedelta(days=1) + timedelta(seconds=10)

Damage = Callable[[World, Witness], object]


@pytest.fixture(scope="module")
def lived() -> Iterator[World]:
    """A world of five days; on the last one a job failed and somebody was told."""
    with scratch.directory("oracles", in_memory=True) as place, forks.started() as children:
        world = World(place=place).make()
        fair = Life(world=world, wall=BEGIN, steps=(TICK, *(SIX_HOURS,) * (4 * DAYS - 4)))
        end = children.run(functools.partial(live, fair)).result
        bad = Life(world=world, wall=end.wall, weather=FAILING, steps=(SIX_HOURS,) * 4)
        children.run(functools.partial(live, bad))
        yield world


@pytest.fixture
def world(lived: World) -> Iterator[World]:
    """A copy of it, to be damaged."""
    with scratch.directory("oracle", in_memory=True) as place:
        yield World(place=shutil.copytree(lived.place, place / "world"))


@pytest.fixture
def witness(world: World) -> Witness:
    """One that has seen it whole, but for the runs and messages of its last life."""
    witness = Witness()
    whole = gather(world, witness, now=END)
    assert judge(whole) == []
    witness.runs -= {run.run_id for run in whole.runs[:8]}
    witness.letters -= {letter.key for letter in whole.letters[-2:]}
    return witness


def sql(world: World, statement: str, *values: str) -> None:
    with contextlib.closing(sqlite3.connect(world.state_path)) as db, db:
        assert db.execute(statement, values).rowcount, "the damage was not done"


def newest(world: World, pattern: str) -> Path:
    return max((world.place / "repository" / SUBJECTS["nightly"]).glob(pattern))


def flip_a_byte(world: World, _witness: Witness) -> None:
    dump = newest(world, "*.dump")
    dump.write_bytes(b"\xff" + dump.read_bytes()[1:])


def forget_a_slot(world: World, _witness: Witness) -> None:
    sql(world, "DELETE FROM runs WHERE job = 'nightly' AND slot LIKE '2027-03-03%'")


def hide_what_failed(world: World, _witness: Witness) -> None:
    sql(world, "UPDATE alerts SET content = '{}'")
    sql(world, "UPDATE outbox SET title = 'hello', body = 'how are you'")


def claim_a_result_twice(world: World, _witness: Witness) -> None:
    sql(
        world,
        "INSERT INTO runs (run_id, job, slot, started_at, outcome, duration_s, findings,"
        " artifacts, seen, error, attempt) SELECT 'twice', job, slot, started_at, outcome,"
        " duration_s, findings, artifacts, seen, error, attempt FROM runs"
        " WHERE job = 'nightly' AND slot LIKE '2027-03-03%'",
    )


def replace_a_result(_world: World, witness: Witness) -> None:
    slots = [slot for subject, slot in witness.results if subject == SUBJECTS["nightly"]]
    witness.results[SUBJECTS["nightly"], max(slots)] = "another"


def remove_the_newest(world: World, _witness: Witness) -> None:
    newest(world, "*.json").unlink()
    newest(world, "*.dump").unlink()


def lose_a_message(world: World, witness: Witness) -> None:
    witness.letters |= set(world.inbox("phone"))
    sql(world, "DELETE FROM outbox")
    for inbox in (world.place / "inbox").iterdir():
        inbox.unlink()


def call_it_delivered(world: World, _witness: Witness) -> None:
    (world.place / "inbox" / "mail").unlink()
    assert world.inbox("phone")


def send_it_again(world: World, _witness: Witness) -> None:
    inbox = world.place / "inbox" / "phone"
    inbox.write_text(inbox.read_text() * 2)


def log_a_secret(world: World, _witness: Witness) -> None:
    with (world.place / "log").open("a") as log:
        log.write(f"connected with {CANARY}\n")


def last_too_long(world: World, _witness: Witness) -> None:
    sql(world, "UPDATE runs SET duration_s = 605.1 WHERE slot LIKE '2027-03-03T02%'")


def never_end(world: World, _witness: Witness) -> None:
    sql(
        world,
        "INSERT INTO runs (run_id, job, slot, started_at, attempt)"
        " VALUES ('lost', 'nightly', '2027-03-05', '2027-03-05', 0)",
    )


def leave_a_temporary_file(world: World, _witness: Witness) -> None:
    folder = world.place / "repository" / SUBJECTS["other"]
    (folder / ".partial--01234567-20270303T000000Z.json").touch()


def leave_data_without_a_manifest(world: World, _witness: Witness) -> None:
    folder = world.place / "repository" / SUBJECTS["other"]
    (folder / "20270303T000000Z-0123456789ab.dump").touch()


DAMAGES: tuple[tuple[Damage, set[oracles.Oracle]], ...] = (
    (flip_a_byte, {oracles.i1_what_completed_can_be_restored}),
    (forget_a_slot, {oracles.i2_every_due_slot_is_on_record}),
    (hide_what_failed, {oracles.i2_what_did_not_complete_is_told}),
    (claim_a_result_twice, {oracles.i3_a_slot_has_one_result}),
    (replace_a_result, {oracles.i3_a_slot_has_one_result}),
    (remove_the_newest, {oracles.i4_the_newest_good_backups_stay}),
    (
        lose_a_message,
        {oracles.i5_no_message_is_lost, oracles.i2_what_did_not_complete_is_told},
    ),
    (call_it_delivered, {oracles.i5_no_message_is_lost}),
    (send_it_again, {oracles.i5_no_message_is_lost}),
    (log_a_secret, {oracles.i7_no_secret_is_told}),
    (last_too_long, {oracles.i8_no_run_goes_on_past_its_deadline}),
    (never_end, {oracles.i10_a_restart_settles}),
    (leave_a_temporary_file, {oracles.i11_nothing_half_made_stays}),
    (leave_data_without_a_manifest, {oracles.i11_nothing_half_made_stays}),
)


@pytest.mark.parametrize(("damage", "seen_by"), DAMAGES, ids=[one[0].__name__ for one in DAMAGES])
def test_an_oracle_sees_the_damage_that_it_is_for(
    world: World, witness: Witness, damage: Damage, seen_by: set[oracles.Oracle]
) -> None:
    damage(world, witness)

    complaints = judge(gather(world, witness, now=END))

    assert {complaint.partition(":")[0] for complaint in complaints} == {
        oracle.__name__ for oracle in seen_by
    }, complaints


def test_a_restart_that_does_not_settle_is_seen(world: World, witness: Witness) -> None:
    complaints = judge(gather(world, witness, now=END, settled=False))

    assert [complaint.partition(":")[0] for complaint in complaints] == [
        oracles.i10_a_restart_settles.__name__
    ]


def test_a_record_from_before_its_slot_was_due_answers_it_not(world: World) -> None:
    witness, day = Witness(), timedelta(days=1)
    judge(gather(world, witness, now=END - 2 * day))  # so the clock of the last two was ahead

    complaints = list(oracles.i2_every_due_slot_is_on_record(gather(world, witness, now=END)))

    assert [text for text in complaints if text.startswith("nightly")] == [
        f"nightly {END - days * day:%Y-%m-%d} 02:30 was due and has no record since"
        for days in (0, 1)
    ]


def test_every_oracle_is_shown_to_complain() -> None:
    shown = {oracle for _, seen_by in DAMAGES for oracle in seen_by}

    assert shown == set(oracles.ORACLES)


@pytest.mark.parametrize(("at", "complaints"), [(0, 0), (1, 1)])
def test_a_retry_that_is_due_is_asked_for(
    world: World, witness: Witness, at: int, complaints: int
) -> None:
    evidence = gather(world, witness, now=END)
    last: Run = next(run for run in evidence.runs if run.job == "nightly")
    patience = oracles.TICKS_TO_SETTLE * TICK.passes
    due = END - patience - timedelta(seconds=at)
    sql(world, "UPDATE runs SET retry_at = ? WHERE run_id = ?", due.isoformat(), last.run_id)

    found = list(oracles.i2_every_due_slot_is_on_record(gather(world, witness, now=END)))

    assert len(found) == complaints
