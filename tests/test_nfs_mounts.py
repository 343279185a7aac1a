"""Mounts as the kernel lists them, and what it counts of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsd.hosts.nfs import known, mounts, traffic
from opsd.hosts.nfs.known import Known

POD = "0a1b2c3d-0000-4000-8000-000000000001"
VOLUME = f"/var/lib/kubelet/pods/{POD}/volumes/kubernetes.io~nfs/pvc-7"
OPTIONS = (
    "rw,vers=4.2,rsize=1048576,wsize=1048576,namlen=255,hard,proto=tcp,timeo=600,retrans=2,"
    "sec=sys,clientaddr=10.0.0.11,local_lock=none,addr=10.0.0.5"
)


def line(source: str, path: str, *, device: str = "0:52", options: str = OPTIONS) -> str:
    return f"812 25 {device} / {path} rw,relatime shared:419 - nfs4 {source} {options}"


def one(text: str) -> mounts.Mount:
    (found,) = mounts.parse(text)
    return found


def test_a_mount_is_read_with_all_that_is_known_of_it() -> None:
    mount = one(line("nas:/export/db", VOLUME))

    assert (mount.server, mount.export, mount.address) == ("nas", "/export/db", "10.0.0.5")
    assert (mount.port, mount.version, mount.is_soft) == (2049, 4, False)
    assert mount.pods == {POD}
    assert mount.volumes == {"pvc-7"}


def test_an_export_at_many_paths_is_one_mount() -> None:
    again = f"/var/lib/kubelet/pods/{POD}/volume-subpaths/pvc-7/app/0"

    mount = one(line("nas:/export/db", VOLUME) + "\n" + line("nas:/export/db", again))

    assert mount.paths == (VOLUME, again)


def test_exports_of_one_device_are_two_mounts() -> None:
    text = line("nas:/export/db", VOLUME) + "\n" + line("nas:/export/app", "/mnt/app")

    assert [mount.export for mount in mounts.parse(text)] == ["/export/db", "/export/app"]


@pytest.mark.parametrize(
    ("options", "soft", "version", "port"),
    [
        ("rw,hard,vers=3,port=0", False, 3, 2049),
        ("rw,soft,vers=4.1,port=12049", True, 4, 12049),
        ("rw,softerr", True, 4, 2049),
        ("rw,softreval,hard,port=x", False, 4, 2049),
    ],
)
def test_options_are_those_of_nfs(options: str, soft: object, version: int, port: int) -> None:
    mount = one(line("nas:/export", "/mnt", options=options))

    assert (mount.is_soft, mount.version, mount.port) == (soft, version, port)


def test_addresses_of_ipv6_stand_in_brackets() -> None:
    mount = one(line("[fd00::5]:/export/db", "/mnt", options="rw,hard"))

    assert (mount.server, mount.address, mount.export) == ("fd00::5", "fd00::5", "/export/db")


def test_a_csi_volume_is_of_its_pod_too() -> None:
    path = f"/var/lib/kubelet/pods/{POD}/volumes/kubernetes.io~csi/pvc-9/mount"

    mount = one(line("nas:/export/x", path))

    assert (mount.pods, mount.volumes) == (frozenset({POD}), frozenset({"pvc-9"}))


@pytest.mark.parametrize("text", ["", "\n\n", "garbage", "1 2 3 - nfs4", "a b c d e f - nfs4"])
def test_what_is_no_mount_is_left_out(text: str) -> None:
    assert mounts.parse(text) == ()


def test_a_server_has_one_name_however_it_was_mounted() -> None:
    text = "\n".join(
        (
            line("nas:/export/db", "/a"),
            line("10.0.0.5:/export/app", "/b"),
            line("nas.home:/export/web", "/c"),
            line("old:/export", "/d", options="rw,addr=10.0.0.6"),
        )
    )

    names = mounts.under_one_name(mounts.parse(text))

    assert names["10.0.0.5"] == names["nas.home"] == names["nas"] == "nas"
    assert names["old"] == "old"


def test_a_server_is_called_as_it_was_mounted_not_by_the_address_behind_that() -> None:
    (found,) = mounts.parse(line("192.0.2.7:/export", "/a", options="rw,addr=10.0.0.5"))

    assert mounts.under_one_name([found]) == {"192.0.2.7": "192.0.2.7"}


STATS = """\
uptime {uptime}
device /dev/vda1 mounted on / with fstype ext4
device nas:/export/db mounted on /mnt/db with fstype nfs4 statvers=1.1
\txprt:\ttcp 877 1 2 0 4 {sent} {received} 0 9000 0 14 100 100
\tper-op statistics
\t        READ: 5 5 0 700 900 1 2 3 0
\t     GETATTR: {operations} {transmissions} {timeouts} 100 200 1 2 3 0
"""


def sample(uptime: float, **counters: int) -> str:
    return STATS.format(uptime=uptime, **counters)


def test_requests_without_an_answer_are_a_stall() -> None:
    before = sample(100.0, sent=1000, received=1000, operations=50, transmissions=50, timeouts=0)
    after = sample(105.5, sent=1004, received=1000, operations=50, transmissions=53, timeouts=1)

    found = traffic.compare(before, after)["/mnt/db"]

    assert found.is_stalled
    assert (found.seconds, found.sent, found.unanswered) == (5.5, 4, 4)
    assert (found.repeated, found.timeouts) == (3, 1)


def test_requests_of_processes_that_were_killed_are_no_stall() -> None:
    same = {"operations": 50, "transmissions": 50, "timeouts": 0}

    found = traffic.compare(
        sample(100.0, sent=1009, received=1000, **same),
        sample(105.0, sent=1011, received=1002, **same),
    )["/mnt/db"]

    assert not found.is_stalled
    assert found.unanswered == 0


@pytest.mark.parametrize(("seconds", "stalled"), [(3.99, False), (4.0, True)])
def test_a_short_silence_is_no_stall(seconds: float, stalled: object) -> None:
    same = {"received": 1000, "operations": 50, "transmissions": 50, "timeouts": 0}

    found = traffic.compare(sample(0.0, sent=1000, **same), sample(seconds, sent=1001, **same))

    assert found["/mnt/db"].is_stalled is stalled


@pytest.mark.parametrize(
    ("sent", "received"),
    [(1000, 1000), (1004, 1001), (1004, 1004)],
    ids=["nothing asked", "one answered", "all answered"],
)
def test_what_is_answered_is_no_stall(sent: int, received: int) -> None:
    same = {"operations": 50, "transmissions": 50, "timeouts": 0}

    found = traffic.compare(
        sample(100.0, sent=1000, received=1000, **same),
        sample(105.0, sent=sent, received=received, **same),
    )

    assert not found["/mnt/db"].is_stalled


@pytest.mark.parametrize(
    "text",
    ["", "uptime x\nxprt: tcp 1 2", "device a mounted on /mnt/db with fstype nfs4\n\txprt: rdma"],
)
def test_counters_that_make_no_sense_are_none(text: str) -> None:
    well = sample(1.0, sent=1, received=1, operations=1, transmissions=1, timeouts=0)

    assert not any(one.is_stalled for one in traffic.compare(text, text).values())
    assert not any(one.is_stalled for one in traffic.compare(text, well).values())


NAS = Known(address="10.0.0.5", port=2049, version=4, machines=("rpi1", "rpi2"))


def test_a_server_that_only_silent_machines_mount_stays_known() -> None:
    assert known.merged({"nas": NAS}, [], silent=frozenset({"rpi2"}))["nas"].machines == ("rpi2",)
    assert known.merged({"nas": NAS}, [], silent=None) == {"nas": NAS}


def test_a_server_that_nobody_mounts_any_more_is_forgotten() -> None:
    assert known.merged({"nas": NAS}, [], silent=frozenset({"rpi3"})) == {}


def test_what_is_seen_now_counts_more_than_what_was_known() -> None:
    mount = one(line("nas:/export", "/mnt", options="rw,vers=3,addr=10.0.0.7"))

    found = known.merged({"nas": NAS}, [("rpi2", mount)], silent=frozenset())

    assert found == {"nas": Known(address="10.0.0.7", port=2049, version=3, machines=("rpi2",))}


def test_what_is_known_comes_back_as_it_was_written(tmp_path: Path) -> None:
    place = tmp_path / "servers.json"

    known.write(place, {"nas": NAS})

    assert known.read(place) == {"nas": NAS}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"servers": {"nas": {}}}', '{"servers": [1]}'])
def test_a_spoiled_memory_is_an_empty_one(tmp_path: Path, text: str) -> None:
    place = tmp_path / "servers.json"
    place.write_text(text)

    assert known.read(place) == {}
