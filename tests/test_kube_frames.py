"""WebSocket frames: what a client writes, and what it reads however it is cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsd.clients.kube.frames import (
    BINARY,
    CLOSE,
    PING,
    Frames,
    NotFrames,
    accept_of,
    frame,
    new_key,
)
from tests.rig.kubeletport import message


def test_the_answer_to_a_challenge_is_that_of_the_standard() -> None:
    assert accept_of("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert new_key() != new_key()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_a_message_of_any_size_is_masked_and_comes_back(size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)

    sent = frame(payload)

    width = 0 if size < 126 else 2 if size < 65536 else 8
    mask, masked = sent[2 + width : 6 + width], sent[6 + width :]
    assert sent[0] == 0x80 | BINARY
    assert sent[1] & 0x80
    assert bytes(byte ^ mask[at % 4] for at, byte in enumerate(masked)) == payload
    assert int.from_bytes(sent[2 : 2 + width], "big") == (size if width else 0)


@given(st.lists(st.binary(max_size=400), max_size=5), st.lists(st.integers(0, 2000), max_size=8))
def test_messages_are_the_same_however_their_bytes_are_cut(
    payloads: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(message(payload) for payload in payloads)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    frames = Frames()

    seen = [
        one for start, end in itertools.pairwise(edges) for one in frames.feed(stream[start:end])
    ]

    assert seen == [(BINARY, payload) for payload in payloads]


def test_a_message_in_parts_is_put_together_around_what_stands_between() -> None:
    stream = bytes([0x02, 2]) + b"ab" + bytes([0x89, 1]) + b"!" + bytes([0x80, 1]) + b"c"

    seen = list(Frames().feed(stream + bytes([0x88, 0])))

    assert seen == [(PING, b"!"), (BINARY, b"abc"), (CLOSE, b"")]


@pytest.mark.parametrize(
    "stream",
    [
        bytes([0xC2, 1, 0]),  # a reserved bit
        bytes([0x82, 0x81, 0, 0, 0, 0, 0]),  # masked
        bytes([0x82, 127]) + (1 << 40).to_bytes(8, "big"),  # a terabyte
        b"HTTP/1.1 500 oops\r\n",
    ],
)
def test_what_is_no_frame_of_a_server_is_refused(stream: bytes) -> None:
    with pytest.raises(NotFrames):
        list(Frames().feed(stream))
