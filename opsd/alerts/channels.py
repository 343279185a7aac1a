"""Which channels bring messages to people, as findings of opsd about itself. Pure.

A phone service that is down is told through the others. When none is left nobody can be told;
then it stands in `opsd status`, the heartbeat stops, and what was missed is told afterwards.

Limits: a channel is known by what it did with real messages; one that nothing was sent to is
taken to be as it was.
"""

from __future__ import annotations

CHANNEL_DOWN = "alerts.channel_down"
NOBODY_REACHED = "alerts.nobody_reached"
