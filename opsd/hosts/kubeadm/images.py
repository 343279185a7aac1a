"""Which images does this node have already?

Limits: those of the runtime that crictl is set up for.
"""

from __future__ import annotations

import json

from opsd.hosts.script import Probe

PROBE = Probe(
    name="images",
    command="command -v crictl >/dev/null || { echo 'crictl is not there' >&2; exit 127; }\n"
    "$root crictl images -o json",
    within_s=20.0,
)


def read(text: str) -> frozenset[str]:
    """The answer to `PROBE`: names with tags.

    Raises:
        ValueError: it is not what crictl prints.
    """
    try:
        listed = json.loads(text)["images"] or []
        return frozenset(str(tag) for image in listed for tag in image.get("repoTags") or ())
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ValueError("this is not what crictl says about images") from exc
