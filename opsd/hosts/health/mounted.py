"""What is mounted from disks of the machine itself: how full, writable, and damaged.

Nothing is asked of a mount that is not on a local disk: a dead file server would not answer.
Each file system is asked once, however often it is bound somewhere.

Source: proc(5), /proc/pid/mountinfo; kernel, Documentation/ABI/testing/sysfs-fs-ext4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from opsd.hosts.health.look import number
from opsd.hosts.script import Probe
from opsd.text import printable

PROBE = "health-filesystem"
BOUND = ("/var/lib/etcd", "/var/lib/containerd", "/var/lib/kubelet")  # where it matters

# A line of mountinfo, ` = `, and what statfs says of it. The kernel writes a path as one word.
_COMMAND = r"""
[ -r /proc/self/mountinfo ] && [ -d /sys/fs ] || exit 9
set -f
seen=' '
while read -r line
do
    kind=${line##* - } kind=${kind%% *}
    set -- $line
    case $5 in /var/lib/etcd|/var/lib/containerd|/var/lib/kubelet) echo "bound $3 $5";; esac
    case $seen in *" $3 "*) continue;; esac
    case $kind:$5 in
        ext[234]:*|xfs:*|btrfs:*|f2fs:*|vfat:*|exfat:*|zfs:*|bcachefs:*|jfs:*) ;;
        overlay:/|tmpfs:/|tmpfs:/run|tmpfs:/tmp) ;;
        *) continue;;
    esac
    seen="$seen$3 " path=$5
    case $path in *\\*) path=$(printf '%b' "$(echo "$path" | sed 's/\\\([0-7]\)/\\0\1/g')");; esac
    printf '%s = %s\n' "$line" "$(stat -f -c '%S %b %f %a %c %d' "$path")"
done </proc/self/mountinfo
set +f
grep -s '^[^#]' /etc/fstab | sed 's/^/fstab /'
for path in /sys/fs/ext4/*/errors_count
do
    [ -r "$path" ] || continue
    at=0 count=0 device=
    name=${path%/*} name=${name##*/}
    read -r count <"$path"
    [ "$count" = 0 ] && continue
    read -r at <"${path%/*}/last_error_time"
    read -r device <"/sys/class/block/$name/dev"
    echo "ext4 $device $count $at"
done
exit 0
"""
PROBES = (Probe(name=PROBE, command=_COMMAND),)

_FIELDS = 6  # of statfs, as asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What a file system has."""

    size_bytes: int
    used_bytes: int
    available_bytes: int  #: to users other than root
    inodes: int  #: 0: made as they are needed
    inodes_free: int

    @property
    def available_percent(self) -> float:
        """Of what users can have, as df counts it."""
        whole = self.used_bytes + self.available_bytes
        return 100 * self.available_bytes / whole if whole else 100.0

    @property
    def inodes_free_percent(self) -> float:
        """Of the number of files that it can hold."""
        return 100 * self.inodes_free / self.inodes if self.inodes else 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One file system, where it was mounted first."""

    device: str  #: ``major:minor``
    path: str
    kind: str
    source: str  #: e.g. ``/dev/mmcblk0p2``
    is_read_only: bool  #: the file system itself, not one view of it
    space: Space | None  #: None: it could not be asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounts:
    """All of them."""

    mounts: tuple[Mount, ...]
    writable: frozenset[str]  #: paths that /etc/fstab wants to be writable
    errors: dict[str, tuple[int, int]] = field(default_factory=dict)  #: by device: count, when
    bound: dict[str, str] = field(default_factory=dict)  #: device by path, of `BOUND`

    def holder(self, path: str) -> Mount | None:
        """The file system that a path lies on."""
        if path in self.bound:
            return next((one for one in self.mounts if one.device == self.bound[path]), None)
        above = [one for one in self.mounts if f"{path}/".startswith(f"{one.path.rstrip('/')}/")]
        return max(above, key=lambda one: len(one.path), default=None)


def parse(text: str) -> Mounts:
    """What the machine printed."""
    mounts: dict[str, Mount] = {}
    writable: set[str] = set()
    errors: dict[str, tuple[int, int]] = {}
    bound: dict[str, str] = {}
    for line in text.splitlines():
        match line.split():
            case ["bound", device, path]:
                bound[path] = device
            case ["fstab", _, path, _, options, *_] if "ro" not in options.split(","):
                writable.add(unescaped(path))
            case ["ext4", device, count, at]:
                errors[device] = (number(count) or 0, number(at) or 0)
            case _:
                mounts.update(_mount(line))
    return Mounts(
        mounts=tuple(mounts.values()), writable=frozenset(writable), errors=errors, bound=bound
    )


def _mount(line: str) -> Iterator[tuple[str, Mount]]:
    told, found, statfs = line.rpartition(" = ")
    view, dash, filesystem = told.rpartition(" - ")
    fields, words = view.split(), filesystem.split()
    if not (found and dash and len(fields) >= _FIELDS and len(words) >= len(("ext4", "source"))):
        return
    kind, source = words[0], words[1]
    options = set(words[2].split(",")) if len(words) > len(("ext4", "source")) else set()
    # All datasets of a ZFS pool share its space.
    name = source.partition("/")[0] if kind == "zfs" else fields[2]
    yield (
        name,
        Mount(
            device=fields[2],
            path=unescaped(fields[4]),
            kind=kind,
            source=printable(source),
            is_read_only=bool(options & {"ro", "emergency_ro", "shutdown"}),
            space=_space(statfs),
        ),
    )


def _space(statfs: str) -> Space | None:
    found = [number(word) for word in statfs.split()]
    if len(found) != _FIELDS:
        return None
    unit, blocks, free, available, inodes, inodes_free = (value or 0 for value in found)
    return Space(
        size_bytes=unit * blocks,
        used_bytes=unit * (blocks - free),
        available_bytes=unit * available,
        inodes=inodes,
        inodes_free=inodes_free,
    )


def unescaped(path: str) -> str:
    r"""A path as the kernel writes it, such as ``/srv/my\040disk``, for people."""
    parts = path.split("\\")
    text = parts[0]
    for part in parts[1:]:
        is_octal = len(part) >= 3 and all(one in "01234567" for one in part[:3])  # noqa: PLR2004
        text += chr(int(part[:3], 8)) + part[3:] if is_octal else f"\\{part}"
    return printable(text)
