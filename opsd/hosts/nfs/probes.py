"""Ask a machine about its NFS mounts without hanging on one of them.

Only `stat` touches a mount, apart from the script that asks, and for five seconds at most. It
asks for the file system, which the server must answer, then for the directory itself: some
servers answer the first for a directory that is gone. The second is answered from memory for up
to a minute. A look that cannot be ended, not even by SIGKILL, stays behind: while it does, its
mount is not looked at again.

Everything else is read from /proc, and nothing that needs the memory of a process which may
wait for a server (`ps` does).

Source: nfs(5); proc(5); the looks were tried on a mount whose server never answers.
"""

from __future__ import annotations

from collections.abc import Iterable

from opsd.hosts.script import Probe

MOUNTS, BEFORE, LOOKS, AFTER, TASKS, LOG = (
    "nfs-mounts",
    "nfs-before",
    "nfs-looks",
    "nfs-after",
    "nfs-tasks",
    "nfs-log",
)
LOOK_S = 5  # for one look; a healthy server needs milliseconds
LOOKS_S = 20.0  # for all of them, which are made together
MOST_MOUNTS = 500
#: The line of sudoers for what is run as root: only root may enter the directories of pods.
RIGHT = "/usr/bin/timeout ^-s KILL [0-9]+ stat (-f )?-c %T -- /var/lib/kubelet/pods/[^ ]+$"

_MOUNTS = r"""
[ -r /proc/self/mountinfo ] || exit 9
grep -E ' - (KINDS) ' /proc/self/mountinfo | head -n MOST
exit 0
"""

# Counters of requests and of each operation that was used.
_TRAFFIC = r"""
[ -r /proc/self/mountstats ] || exit 0
read -r uptime _ </proc/uptime
printf 'uptime %s\n' "$uptime"
grep -E '^device .* with fstype nfs|^[[:space:]]xprt:|^[[:space:]]+[A-Z_]+: [1-9]' \
    /proc/self/mountstats | head -n 5000
exit 0
"""

_LOOKS = r"""
command -v timeout >/dev/null 2>&1 || { echo 'timeout is not installed' >&2; exit 9; }
for base in "/run/user/$(id -u)" /dev/shm /tmp; do [ -d "$base" ] && [ -w "$base" ] && break; done
dir=$(mktemp -d "$base/opsd-nfs.XXXXXX") || exit 9
trap 'rm -rf "$dir"' EXIT
session= n=0 begun=' ' ended=' '
command -v setsid >/dev/null 2>&1 && session=setsid
grep -E ' - (KINDS) ' /proc/self/mountinfo | head -n MOST >"$dir/mounts"

for one in /proc/[0-9]*/stat; do
    read -r line <"$one" || continue
    case $line in *' (stat) D '*) tr '\0' '\n' <"${one%stat}cmdline";; esac
done >"$dir/waiting" 2>/dev/null
set -f

look() { # DEVICE SOURCE PATH: begin to look, unless an earlier look still waits
    n=$((n + 1)) as= path=$3
    case $path in *\\*)
        path=$(printf '%b' "$(printf '%s' "$path" | sed 's/\\\([0-7]\)/\\0\1/g')");;
    esac
    printf '%s %s\n' "$1" "$2" >"$dir/$n.what"
    if grep -qxF -e "$path" "$dir/waiting"; then
        echo 'waiting 0 0' >"$dir/$n"
        return
    fi
    case $path in */pods/*) as=$root;; esac
    export as
    $session sh -c '
        read -r began _ </proc/uptime
        ask() { $as timeout -s KILL LIMIT stat "$@" </dev/null >/dev/null 2>"$file.err"; }
        file=$1
        ask -f -c %T -- "$0" && ask -c %T -- "$0"
        status=$?
        read -r ended _ </proc/uptime
        echo "$status $began $ended" >"$1.new" && mv "$1.new" "$1"
    ' "$path" "$dir/$n" </dev/null >/dev/null 2>&1 &
}

settle() { # FROM: wait for the looks from that number on, a second longer than they may take
    turns=0
    while [ "$turns" -lt "$(( (LIMIT + 1) * 10 ))" ]; do
        i=$1
        while [ -e "$dir/$i" ]; do i=$((i + 1)); done
        [ "$i" -gt "$n" ] && return
        turns=$((turns + 1))
        sleep 0.1 2>/dev/null || { sleep 1; turns=$((turns + 9)); }
    done
}

report() { # FROM: print what came of them
    i=$1
    while [ "$i" -le "$n" ]; do
        error= status=hung began=0 ended=0
        read -r device source <"$dir/$i.what"
        [ -e "$dir/$i" ] && read -r status began ended <"$dir/$i"
        [ -s "$dir/$i.err" ] && error=$(head -n 1 "$dir/$i.err" | cut -c 1-300)
        printf '%s %s %s %s %s %s\n' "$device" "$source" "$status" "$began" "$ended" "$error"
        case $status in 0|1) answers="$answers$device ";; esac
        i=$((i + 1))
    done
}

# One of each device first. Where that hangs, the others would hang with it.
devices=' ' answers=' '
while read -r line; do
    kind=${line##* - }
    set -- $line
    case $devices in *" $3 "*) continue;; esac
    devices="$devices$3 " device=$3 path=$5
    set -- $kind
    begun="$begun$device/$2 "
    look "$device" "$2" "$path"
done <"$dir/mounts"
settle 1
report 1
first=$((n + 1))
while read -r line; do
    kind=${line##* - }
    set -- $line
    device=$3 path=$5
    set -- $kind
    case $begun in *" $device/$2 "*) continue;; esac
    case $answers in *" $device "*) ;; *) continue;; esac
    begun="$begun$device/$2 "
    look "$device" "$2" "$path"
done <"$dir/mounts"
settle "$first"
report "$first"
exit 0
"""

# Threads that cannot be interrupted, and the pod that each belongs to.
_TASKS = r"""
[ -r /proc/1/stat ] || exit 9
for one in /proc/[0-9]*/task/[0-9]*/stat; do
    read -r line <"$one" || continue
    case ${line##*) } in D*) ;; *) continue;; esac
    task=${one%/stat} process=${one%%/task/*} wchan=
    read -r wchan <"$task/wchan"
    group=$(grep -m 1 -F kubepods "$task/cgroup")
    name=${line#*(}
    printf '%s %s %s %s\n' "${process#/proc/}" "${wchan:--}" "${group:--}" "${name%)*}"
done 2>/dev/null | head -n 500
exit 0
"""

_LOG = r"""
read -r uptime _ </proc/uptime
printf 'uptime %s\n' "$uptime"
{ dmesg 2>/dev/null || $root dmesg; } |
    grep -E 'nfs: server .* (not responding|OK)' | tail -n 50
exit 0
"""


def probes(kinds: Iterable[str]) -> tuple[Probe, ...]:
    """The questions, in their order.

    Args:
        kinds: types of file systems that are looked at, as /proc/mounts calls them; letters,
            digits, dots, ``-`` and ``_``.
    """

    def filled(text: str) -> str:
        return (
            text.replace("KINDS", "|".join(kind.replace(".", r"\.") for kind in kinds))
            .replace("LIMIT", str(LOOK_S))
            .replace("MOST", str(MOST_MOUNTS))
        )

    kinds = tuple(kinds)
    return (
        Probe(name=MOUNTS, command=filled(_MOUNTS)),
        Probe(name=BEFORE, command=_TRAFFIC),
        Probe(name=LOOKS, command=filled(_LOOKS), within_s=LOOKS_S),
        Probe(name=AFTER, command=_TRAFFIC),
        Probe(name=TASKS, command=_TASKS),
        Probe(name=LOG, command=_LOG),
    )
