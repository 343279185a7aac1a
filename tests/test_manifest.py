"""A manifest says everything that the worst day needs, in plain JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsd.backup.manifest import (
    DamagedManifest,
    LaterVerification,
    Level,
    Manifest,
    Verification,
    data_key,
    decode,
    decode_later,
    encode,
    later_key,
    manifest_key,
)

SLOT = datetime(2026, 11, 22, 3, tzinfo=UTC)
SUBJECT = "database/main/app"


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "kind": "pg_dump",
        "subject": SUBJECT,
        "slot": SLOT,
        "run_id": "0123456789ab",
        "created_at": SLOT + timedelta(minutes=3),
        "key": data_key(SUBJECT, SLOT, "0123456789ab", ".dump"),
        "size_bytes": 5,
        "sha256": "0" * 64,
        "verified": (Verification(level="parsed", at=SLOT, ok=True),),
        **changes,
    }
    return Manifest(**fields)


def test_a_manifest_comes_back() -> None:
    value = manifest(source={"tables": {"public.a": 3}, "partial": False})

    assert decode(encode(value), key="k") == value


def test_a_manifest_is_json_that_a_person_can_read() -> None:
    content = encode(manifest())

    assert content.endswith(b"}\n")
    assert content.count(b"\n") > 10
    assert json.loads(content)["slot"] == "2026-11-22T03:00:00Z"


def test_a_record_comes_back() -> None:
    value = LaterVerification(
        manifest="k", sha256="0", verification=Verification(level="restored", at=SLOT, ok=False)
    )

    assert decode_later(encode(value), key="k") == value


def test_what_a_newer_version_adds_is_ignored_in_the_same_format() -> None:
    content = json.loads(encode(manifest()))

    assert decode(json.dumps({**content, "new": 1}).encode(), key="k") == manifest()


def test_a_newer_format_is_refused_with_the_remedy() -> None:
    content = json.loads(encode(manifest()))

    with pytest.raises(DamagedManifest, match="update opsd"):
        decode(json.dumps({**content, "format": 2}).encode(), key="k")


def test_a_time_without_a_zone_is_damage() -> None:
    content = json.loads(encode(manifest()))

    with pytest.raises(DamagedManifest, match="timezone"):
        decode(json.dumps({**content, "created_at": "2026-11-22T03:00:00"}).encode(), key="k")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_damage(content: bytes) -> None:
    with pytest.raises(DamagedManifest, match=r"^the-key: "):
        decode(content, key="the-key")


@given(st.integers(0, 2000), st.integers(0, 7))
def test_a_flipped_bit_never_crashes_the_reader(position: int, bit: int) -> None:
    content = bytearray(encode(manifest()))
    content[position % len(content)] ^= 1 << bit

    try:
        decode(bytes(content), key="k")
    except DamagedManifest:
        return


def test_keys_of_one_slot_lie_together() -> None:
    key = manifest_key(SUBJECT, SLOT)

    assert key == "database/main/app/20261122T030000Z.json"
    assert data_key(SUBJECT, SLOT, "ab", ".dump.age") == (
        "database/main/app/20261122T030000Z-ab.dump.age"
    )
    assert later_key(key, SLOT + timedelta(days=1)) == (
        "database/main/app/20261122T030000Z.verified-20261123T030000Z.json"
    )


@pytest.mark.parametrize("level", list(Level))
def test_levels_and_labels_match(level: Level) -> None:
    assert Level.of(level.label) is level


def test_an_unknown_level_proves_nothing() -> None:
    assert Level.of("blessed") is Level.NONE
