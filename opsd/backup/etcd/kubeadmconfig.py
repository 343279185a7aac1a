"""kubeadm's own configuration, out of etcd itself: it must be had also when no API server runs.

It lies in the ConfigMap kube-system/kubeadm-config, which etcd holds as a protobuf message.

Limits: where ConfigMaps are encrypted in etcd nothing can be read; it is in the snapshot then.
Source: k8s.io/apimachinery/pkg/runtime/generated.proto (Unknown), k8s.io/api/core/v1 (ConfigMap).
"""

from __future__ import annotations

from collections.abc import Iterator

KEY = "/registry/configmaps/kube-system/kubeadm-config"
ENTRY = "ClusterConfiguration"
_MAGIC = b"k8s\0"
_RAW, _DATA, _MAP_KEY, _MAP_VALUE = 2, 2, 1, 2  # field numbers
_LENGTHS = {1: 8, 5: 4}  # bytes of values of fixed size, by wire type
_VARINT, _BYTES = 0, 2
_LONGEST_VARINT = 10


def cluster_configuration(stored: bytes | None) -> str:
    """The YAML of the ClusterConfiguration; empty when it cannot be read.

    Args:
        stored: the value under `KEY`.
    """
    if not stored or not stored.startswith(_MAGIC):
        return ""
    try:
        for raw in _fields(stored[len(_MAGIC) :], _RAW):
            for entry in _fields(raw, _DATA):
                if ENTRY.encode() in _fields(entry, _MAP_KEY):
                    return next(_fields(entry, _MAP_VALUE), b"").decode("utf-8")
    except (ValueError, IndexError):
        return ""
    return ""


def _fields(message: bytes, wanted: int) -> Iterator[bytes]:
    """The contents of every field of this number that has a length.

    Raises:
        ValueError, IndexError: it is no protobuf message.
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
            continue
        if kind == _BYTES:
            length, at = _varint(message, at)
        elif kind in _LENGTHS:
            length = _LENGTHS[kind]
        else:
            raise ValueError(f"wire type {kind}")
        if at + length > len(message):
            raise ValueError("cut off")
        if number == wanted and kind == _BYTES:
            yield message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends."""
    value = 0
    for shift in range(_LONGEST_VARINT):
        byte = message[at + shift]
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:  # noqa: PLR2004 - the sign that it is the last
            return value, at + shift + 1
    raise ValueError("a number without an end")
