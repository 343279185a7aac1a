"""Have the machines room, the right time and the images, before anything is changed?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from opsd.hosts.health import clock
from opsd.hosts.health.look import Boot, Look
from opsd.hosts.health.look import Unreadable as UnreadablePart
from opsd.hosts.kubeadm import images, storage
from opsd.hosts.kubeadm.storage import Space
from opsd.upgrade import releases
from opsd.upgrade.answers import partly_understood, understood
from opsd.upgrade.check import (
    Check,
    Hop,
    Note,
    Scope,
    each,
    failed,
    passed,
    skipped,
    unknown,
    warned,
)
from opsd.upgrade.facts import Facts, MachineFacts
from opsd.upgrade.reading import Unreadable
from opsd.upgrade.version import Version

_GIB = 1 << 30
_MIB = 1 << 20
_COPY_BYTES = _GIB  # beside the copy of etcd that kubeadm makes
_IMAGES_FREE = 0.15  # below it the kubelet throws images away (imageGCHighThresholdPercent: 85)
_BOOT_BYTES = 50 * _MIB
_OLD_COPIES_BYTES = _GIB
_CLOCK_FAIL_S = 5.0
_CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")


def _judge_space(facts: Facts, _hop: Hop) -> Iterator[Note]:
    def judge(machine: MachineFacts) -> Iterator[Note]:
        spaces = understood(machine, storage.SPACE_PROBE, storage.read_space)
        for path in (storage.CONTAINERD, "/var/lib/kubelet"):
            if path in spaces:
                yield _images(machine, spaces[path])
        if storage.BOOT in spaces and spaces[storage.BOOT].free_bytes < _BOOT_BYTES:
            yield warned(*_free(machine, spaces[storage.BOOT]))
        if "/" not in spaces:
            raise Unreadable(f"{machine.name}: /", "df says nothing of it")
        yield passed(*_free(machine, spaces["/"]))
        if machine.is_control_plane:
            yield from _copies(machine, spaces)

    yield from each(facts.machines.value, judge)


def _free(machine: MachineFacts, space: Space) -> tuple[str, str]:
    free, size = space.free_bytes / _GIB, space.size_bytes / _GIB
    return f"{machine.name}: {space.path}", f"{free:.1f} of {size:.1f} GiB free on {space.device}"


def _images(machine: MachineFacts, space: Space) -> Note:
    where, value = _free(machine, space)
    if space.free_bytes < _IMAGES_FREE * space.size_bytes:
        fix = f"on {machine.name}: crictl rmi --prune, or free space on {space.mount}"
        return failed(where, f"{value}; below 15 % the kubelet evicts pods", fix=fix)
    return passed(where, value)


def _copies(machine: MachineFacts, spaces: Mapping[str, Space]) -> Iterator[Note]:
    """Kubeadm copies etcd's folder to /etc/kubernetes/tmp with every upgrade, and leaves it."""
    space = spaces.get("/etc/kubernetes")
    if space is None:
        raise Unreadable(f"{machine.name}: /etc/kubernetes", "it is not there")
    folders = partly_understood(machine, storage.FOLDERS_PROBE, storage.read_folders)
    old = folders.get(storage.COPIES, 0)
    if old > _OLD_COPIES_BYTES:
        where = f"{machine.name}: {storage.COPIES}"
        fix = f"keep the newest folder in {storage.COPIES} and remove the others"
        yield warned(where, f"{old / _GIB:.1f} GiB of copies of earlier upgrades", fix=fix)
    where, value = _free(machine, space)
    needed = folders.get(storage.ETCD, 0) + _COPY_BYTES
    if space.free_bytes < needed:
        value = f"{value}; kubeadm needs {needed / _GIB:.1f} GiB for its copy of etcd"
        yield failed(where, value, fix=f"free space on {space.mount} of {machine.name}")
    else:
        yield passed(where, value)


def _judge_clock(facts: Facts, _hop: Hop) -> Iterator[Note]:
    def judge(machine: MachineFacts) -> Iterator[Note]:
        look = Look(
            machine=machine.machine,
            part=clock.PART.name,
            sections=machine.sections,
            at=facts.at,
            boot=Boot(id="", uptime_s=0),
            clock_offset_s=machine.clock_offset_s,
        )
        machine.section(clock.PROBE)
        try:
            answer = clock.read(look)
        except UnreadablePart as exc:
            why = exc.unknown
            raise Unreadable(f"{machine.name}: clock", why.why, fix=why.fix) from exc
        where = f"{machine.name}: clock"
        for finding in answer.findings:
            offset_s = abs(float(finding.facts.get("offset_s") or 0.0))
            is_bad = offset_s > _CLOCK_FAIL_S or (machine.is_control_plane and not offset_s)
            make = failed if is_bad else warned
            yield make(where, finding.summary, fix=finding.remedy)
        for one in answer.unknown:
            yield unknown(where, one.why, fix=one.fix)
        kept = str(answer.facts.get("clock", ""))
        yield passed(where, kept) if kept.startswith("kept") else warned(where, kept)

    yield from each(facts.machines.value, judge)


def _judge_images(facts: Facts, hop: Hop) -> Iterator[Note]:
    if not hop.is_first:
        yield skipped("images", "to be looked at when the hop before is done")
        return
    release = releases.table().of(hop.target)
    if release is None:
        raise Unreadable("the table of releases", f"it knows nothing of {hop.target}")

    def judge(machine: MachineFacts) -> Iterator[Note]:
        found = understood(machine, images.PROBE, images.read)
        wanted = ["kube-proxy"]
        if machine.is_control_plane:
            wanted += _CONTROL_PLANE
        missing = [name for name in wanted if not _has(found, name, hop)]
        where = f"{machine.name}: images"
        if missing:
            version = f"v{release.newest}" if release.newest else f"stable-{hop.target}"
            pull = f"kubeadm config images pull --kubernetes-version {version}"
            fix = f"before the window: {pull} on the control plane, crictl pull on the others"
            yield warned(where, f"not there for {hop.target}: {', '.join(missing)}", fix=fix)
        else:
            yield passed(where, f"those of {hop.target} are there")

    yield from each(facts.machines.value, judge)


def _has(found: frozenset[str], name: str, hop: Hop) -> bool:
    for image in found:
        if image.partition("@")[0].rpartition("/")[2].partition(":")[0] == name:
            try:
                if Version.of_image(image).minor == hop.target:
                    return True
            except ValueError:
                continue
    return False


SPACE = Check(
    id="disk-space",
    title="There is room for the images and for kubeadm's copy of etcd",
    row=38,
    judge=_judge_space,
    fix="free space on the file system that is named",
    source="kubernetes/kubernetes issue 125357; kubespray issue 13412",
    probes=(storage.SPACE_PROBE, storage.FOLDERS_PROBE),
)
CLOCK = Check(
    id="clock",
    title="Clocks are right",
    row=44,
    judge=_judge_clock,
    fix="timedatectl set-ntp true, or install chrony",
    source="general knowledge: certificates and etcd's leases need the right time",
    probes=clock.PART.probes,
)
IMAGES = Check(
    id="images",
    title="The images of the next release are on the nodes",
    row=46,
    judge=_judge_images,
    fix="kubeadm config images pull, before the window",
    source="kubeadm documentation: config images",
    probes=(images.PROBE,),
    scope=Scope.HOP,
)
