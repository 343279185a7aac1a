"""What may be done on which proof that nothing of a lost node runs or writes any more. Pure.

Silence is no proof: a node that is only cut off goes on writing, and a second database on the
same files destroys them.
"""

from __future__ import annotations

import enum

from opsd.cluster.nodeloss.verdict import Kind


class Proof(enum.IntEnum):
    """From nothing to certainty."""

    API_SILENCE = 0  #: the API server hears nothing: nothing may be done
    SILENCE = 1  #: nor does anybody else: people may be told that it is likely dead
    SEEN_INSIDE = 2  #: somebody was inside: it was rebooted, or the containers are gone
    STORAGE_CUT = 3  #: a fence keeps it from the network or the storage, and was read back
    POWER_OFF = 4  #: a fence took its power, and that was read back
    PERSON = 5  #: somebody says, for a while, that it is off

    @property
    def acts(self) -> bool:
        """Whether anything may be done on it at all."""
        return self >= Proof.SEEN_INSIDE

    def suffices(self, kind: Kind) -> bool:
        """Whether the pods of a node that is lost in this way may be taken from it.

        Only a fence that was read back outweighs a witness who saw the machine alive; the word
        of a person does not, because one of the two is wrong.
        """
        if self in (Proof.STORAGE_CUT, Proof.POWER_OFF):
            return kind.is_lost
        if self is Proof.PERSON:
            return kind in _NOT_SEEN_RUNNING
        return self is Proof.SEEN_INSIDE and kind in _DEAD


_DEAD = frozenset({Kind.REBOOTED_NOT_BACK, Kind.KUBELET_DEAD})
_NOT_SEEN_RUNNING = _DEAD | {Kind.SILENT}


def shown_by(kind: Kind) -> Proof:
    """What the looks at a node prove by themselves, before anything is done."""
    if kind in _DEAD:
        return Proof.SEEN_INSIDE
    return Proof.SILENCE if kind is Kind.SILENT else Proof.API_SILENCE
