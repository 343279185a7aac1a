"""Where the fault lies: the server, the way to it, or the mount."""

from __future__ import annotations

import pytest

from opsd.clients.rpc import Answer, Outcome
from opsd.hosts.nfs.answers import Look, Sight
from opsd.hosts.nfs.judging import OPSD, Health, State, is_suspect, judge, judge_server
from opsd.hosts.nfs.traffic import Traffic

ALIVE = Answer(outcome=Outcome.ANSWERED)
OTHER_VERSION = Answer(outcome=Outcome.ANSWERED, is_served=False)
SILENT = Answer(outcome=Outcome.SILENT)
REFUSED = Answer(outcome=Outcome.REFUSED)
WELL = Look(sight=Sight.ANSWERED, seconds=0.01)
HUNG = Look(sight=Sight.HUNG)
STALE = Look(sight=Sight.STALE)
ERROR = Look(sight=Sight.ERROR, detail="Input/output error")
NOT_ALLOWED = Look(sight=Sight.REFUSED)
UNKNOWN = Look(sight=Sight.UNKNOWN)
STALLED = Traffic(seconds=5, sent=3, received=0, repeated=0, timeouts=0)
FLOWING = Traffic(seconds=5, sent=3, received=1, repeated=0, timeouts=0)
SLOW_S = 1.0


def seconds(taken: float) -> Look:
    return Look(sight=Sight.ANSWERED, seconds=taken)


@pytest.mark.parametrize(
    ("look", "traffic", "server", "call", "state"),
    [
        (seconds(1.0), None, Health.ALIVE, None, State.OK),
        (seconds(1.01), None, Health.ALIVE, None, State.SLOW),
        # A mount that answers is well, whatever else fails.
        (WELL, STALLED, Health.DOWN, SILENT, State.OK),
        (STALE, None, Health.ALIVE, ALIVE, State.STALE),
        (STALE, None, Health.DOWN, SILENT, State.STALE),
        (HUNG, None, Health.ALIVE, ALIVE, State.HUNG),
        (HUNG, None, Health.ALIVE, OTHER_VERSION, State.HUNG),
        (HUNG, None, Health.ALIVE, None, State.HUNG),
        (HUNG, None, Health.ALIVE, SILENT, State.PATH_BROKEN),
        (HUNG, None, Health.ALIVE, REFUSED, State.PATH_BROKEN),
        (HUNG, None, Health.STUCK, SILENT, State.PATH_BROKEN),
        (HUNG, None, Health.STUCK, ALIVE, State.SERVER_DOWN),
        (HUNG, None, Health.DOWN, SILENT, State.SERVER_DOWN),
        (HUNG, None, Health.DOWN, None, State.SERVER_DOWN),
        # Whether others reach the server is not known: so nothing is said of the way.
        (HUNG, None, Health.UNKNOWN, SILENT, State.HUNG),
        (ERROR, None, Health.ALIVE, ALIVE, State.ERRORS),
        (ERROR, None, Health.ALIVE, REFUSED, State.PATH_BROKEN),
        (ERROR, None, Health.DOWN, REFUSED, State.SERVER_DOWN),
        (NOT_ALLOWED, None, Health.ALIVE, None, State.UNKNOWN),
        (NOT_ALLOWED, FLOWING, Health.ALIVE, None, State.UNKNOWN),
        (NOT_ALLOWED, STALLED, Health.ALIVE, None, State.HUNG),
        (UNKNOWN, STALLED, Health.DOWN, None, State.SERVER_DOWN),
        (UNKNOWN, None, Health.DOWN, None, State.UNKNOWN),
    ],
)
def test_a_mount_is_judged_by_what_was_seen(
    look: Look, traffic: Traffic | None, server: Health, call: Answer | None, state: State
) -> None:
    assert judge(look, traffic, server=server, call=call, slow_s=SLOW_S) is state


@pytest.mark.parametrize(
    ("calls", "seen", "health"),
    [
        ({OPSD: ALIVE}, {}, Health.ALIVE),
        ({OPSD: OTHER_VERSION}, {}, Health.ALIVE),
        # One place that fails may be at fault itself; two are not.
        ({OPSD: SILENT}, {}, Health.UNKNOWN),
        ({OPSD: SILENT, "rpi1": SILENT}, {}, Health.DOWN),
        ({OPSD: REFUSED, "rpi1": SILENT}, {}, Health.DOWN),
        # A mount that hangs stands for a machine that could not call; it counts once.
        ({OPSD: SILENT}, {"rpi1": HUNG}, Health.DOWN),
        ({"rpi1": SILENT}, {"rpi1": HUNG}, Health.UNKNOWN),
        ({OPSD: SILENT}, {"rpi1": NOT_ALLOWED}, Health.UNKNOWN),
        ({OPSD: SILENT}, {"rpi1": ERROR}, Health.DOWN),
        # One answer, from wherever, and it is not down.
        ({OPSD: SILENT, "rpi1": ALIVE}, {"rpi1": HUNG}, Health.ALIVE),
        ({OPSD: SILENT, "rpi1": SILENT}, {"rpi1": HUNG, "rpi2": WELL}, Health.ALIVE),
        ({OPSD: SILENT, "rpi1": SILENT}, {"rpi1": HUNG, "rpi2": STALE}, Health.ALIVE),
        # It answers calls while everything on it hangs: on one machine, or on two.
        ({OPSD: ALIVE}, {"rpi1": HUNG}, Health.ALIVE),
        ({OPSD: ALIVE}, {"rpi1": HUNG, "rpi2": HUNG}, Health.STUCK),
        ({OPSD: ALIVE}, {"rpi1": HUNG, "rpi2": HUNG, "rpi3": WELL}, Health.ALIVE),
        ({OPSD: ALIVE, "rpi2": SILENT}, {"rpi1": HUNG, "rpi2": HUNG}, Health.ALIVE),
    ],
)
def test_a_server_is_down_only_when_nobody_reached_it_from_two_places(
    calls: dict[str, Answer], seen: dict[str, Look], health: Health
) -> None:
    looks = [(machine, look, None) for machine, look in seen.items()]

    assert judge_server("nas", calls, looks).health is health


@pytest.mark.parametrize(
    ("look", "traffic", "suspect"),
    [
        (HUNG, None, True),
        (ERROR, None, True),
        (WELL, STALLED, False),
        (STALE, None, False),
        (UNKNOWN, None, False),
        (UNKNOWN, STALLED, True),
        (UNKNOWN, FLOWING, False),
    ],
)
def test_only_what_may_be_the_servers_fault_is_followed(
    look: Look, traffic: Traffic | None, suspect: object
) -> None:
    assert is_suspect(look, traffic) is suspect
