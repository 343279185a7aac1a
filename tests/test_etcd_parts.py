"""What surrounds a snapshot: files of the node, flags, the tar, kubeadm's settings, judgements."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from opsd.backup.etcd import bundle, files, health, plane, rebuild
from opsd.backup.etcd.bundle import File, Unreadable
from opsd.backup.etcd.health import View
from opsd.backup.etcd.kubeadmconfig import cluster_configuration
from opsd.backup.etcd.restore import Damaged, unpack
from opsd.backup.etcd.settings import EXAMPLE, Settings
from opsd.backup.etcd.snapshot import SnapshotCheck
from opsd.backup.etcd.source import EtcdSource, Promise
from opsd.backup.stream import Incomplete
from opsd.clients.etcd.answers import Alarm, Header, Member, Status
from opsd.clients.etcd.member import Snapshot
from opsd.errors import ConfigError, PermanentError, TransientError
from opsd.hosts.script import Section
from opsd.model import Severity
from tests.rig.planes import APISERVER_MANIFEST, ETCD_MANIFEST, FILES, write_root

KEY = "age1ejfj047vy84ga9xtcrtxlv4amlqx6wrrnx52n6fqrjmurkdtmekqk5ex9g"
NODE = tuple(File(path=name, content=content.encode()) for name, content in FILES.items())
SOURCE = EtcdSource(
    cluster="main",
    node="rpi1",
    address="10.0.0.11",
    peer_url="https://10.0.0.11:2380",
    data_dir="/var/lib/etcd",
    etcd_version="3.6.6",
    kubernetes_version="1.36.3",
    taken_at=datetime(2026, 11, 22, 3, tzinfo=UTC),
    promise=Promise(revision=4711, keys=800, hash=1, compact_revision=0),
)


def snapshot_of(pages: bytes) -> bytes:
    return pages + hashlib.sha256(pages).digest()


def checked(content: bytes, *, promised: int | None = None, piece: int = 1000) -> None:
    check = SnapshotCheck()
    for at in range(0, len(content), piece):
        check.feed(content[at : at + piece])
    check.finish(promised_bytes=len(content) if promised is None else promised)


# --- the snapshot's own SHA-256 ---


@given(pages=st.integers(1, 40), piece=st.integers(1, 3000))
def test_a_whole_snapshot_is_believed_in_pieces_of_any_length(pages: int, piece: int) -> None:
    checked(snapshot_of(b"p" * 512 * pages), piece=piece)


@given(data=st.data())
def test_no_changed_byte_goes_unseen(data: st.DataObject) -> None:
    content = bytearray(snapshot_of(bytes(range(256)) * 8))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))

    with pytest.raises(Incomplete, match="SHA-256"):
        checked(bytes(content))


@pytest.mark.parametrize("size", [0, 31, 32, 512, 543])
def test_what_is_too_short_or_of_odd_length_is_no_snapshot(size: int) -> None:
    with pytest.raises(Incomplete, match="no snapshot"):
        checked(b"x" * size)


def test_a_snapshot_of_another_size_than_promised_is_not_believed() -> None:
    content = snapshot_of(b"p" * 512)

    for wrong in (len(content) - 512, len(content) + 512):
        with pytest.raises(Incomplete, match="ended after 544 of"):
            checked(content, promised=wrong)


# --- what the node's files say ---


def test_the_files_say_who_the_control_plane_is() -> None:
    found = plane.plane_of(NODE)

    assert (found.node, found.address, found.data_dir) == ("rpi1", "10.0.0.11", "/var/lib/etcd")
    assert (found.kubernetes_version, found.etcd_version) == ("1.36.3", "3.6.6")
    assert found.etcd_servers == ("https://127.0.0.1:2379",)
    assert found.is_stacked
    assert plane.missing(found, NODE, accepted=()) == ()
    identity = plane.identity_of(found, NODE)
    assert identity
    assert identity.key == "canary-key apiserver-etcd-client.key\n"
    assert "canary-key" not in repr(identity).partition("key=")[2]


@pytest.mark.parametrize("name", sorted({*plane.NEEDED, *plane.NEEDED_STACKED}))
def test_each_needed_file_is_missed(name: str) -> None:
    left = tuple(file for file in NODE if file.path != name)

    assert f"/{name}" in plane.missing(plane.plane_of(left), left, accepted=())
    assert plane.missing(plane.plane_of(left), left, accepted=[f"/{name}", name]) == tuple(
        f"/{one}" for one in plane.not_yet(plane.plane_of(left), left) if one != name
    )


def test_an_external_etcd_needs_none_of_its_files_here() -> None:
    external = APISERVER_MANIFEST.replace("127.0.0.1", "10.0.0.99")
    left = tuple(
        File(path=plane.APISERVER, content=external.encode())
        if file.path == plane.APISERVER
        else file
        for file in NODE
        if file.path not in {plane.ETCD, f"{plane.PKI}/etcd/ca.key"}
    )

    found = plane.plane_of(left)

    assert not found.is_stacked
    assert plane.missing(found, left, accepted=()) == ()


@pytest.mark.parametrize(
    ("flag", "is_named"),
    [
        ("--encryption-provider-config=/srv/enc.yaml", True),
        ("--audit-policy-file=/srv/enc.yaml", True),
        ("--oidc-ca-file=/srv/enc.yaml", True),
        ("--authorization-kubeconfig=/srv/enc.yaml", True),
        ('"--authentication-config=/srv/enc.yaml"', True),
        ("--audit-log-path=/srv/enc.yaml", False),
        ("--log-file=/srv/enc.yaml", False),
        ("--data-dir=/srv/enc.yaml", False),
        ("--oidc-ca-file=relative.yaml", False),
    ],
)
def test_files_that_flags_name_are_looked_for(flag: str, *, is_named: bool) -> None:
    text = APISERVER_MANIFEST.replace("    image:", f"    - {flag}\n    image:")
    node = (*NODE, File(path=plane.APISERVER, content=text.encode()))

    assert ("srv/enc.yaml" in plane.not_yet(plane.plane_of(node), node)) is is_named


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("registry.k8s.io/etcd:3.6.6-0", "3.6.6"),
        ("10.0.0.2:5000/kube-apiserver:v1.36.3", "1.36.3"),
        ('"registry.k8s.io/etcd:3.5.24-0"', "3.5.24"),
        ("registry.k8s.io/etcd@sha256:abc", ""),
        ("registry.k8s.io/etcd:latest", ""),
    ],
)
def test_versions_are_read_from_the_tag(image: str, version: str) -> None:
    assert plane.version_of(f"  image: {image}\n") == version


def test_the_quota_is_the_flags_or_two_gibibytes() -> None:
    flagged = ETCD_MANIFEST.replace("    - etcd\n", "    - --quota-backend-bytes=4294967296\n")

    with_flag = plane.plane_of([File(path=plane.ETCD, content=flagged.encode())])

    assert with_flag.quota_bytes == 4 << 30
    assert plane.plane_of(NODE).quota_bytes == 2 << 30


# --- how the files come ---


def section(raw: bytes, *, stderr: str = "") -> Section:
    text = base64.encodebytes(raw).decode()
    return Section(name=files.NAME, stdout=text, stderr=stderr, status=0)


def tar_of(*members: tarfile.TarInfo) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return packed.getvalue()


def member(name: str, **changed: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size = 1
    for key, value in changed.items():
        setattr(made, key, value)
    return made


def test_files_links_and_modes_arrive_as_they_are() -> None:
    link = member("b", type=tarfile.SYMTYPE, linkname="/somewhere", size=0)

    found = files.received(section(tar_of(member("a", mode=0o640, uid=7), link)), machine="rpi1")

    assert [(one.path, one.mode, one.uid, one.link) for one in found] == [
        ("a", 0o640, 7, ""),
        ("b", 0o644, 0, "/somewhere"),
    ]


def test_a_file_with_two_names_arrives_under_both() -> None:
    second = member("b", type=tarfile.LNKTYPE, linkname="a", size=0)

    found = files.received(section(tar_of(member("a"), second)), machine="rpi1")

    assert [(one.path, one.content) for one in found] == [("a", b"x"), ("b", b"x")]


@pytest.mark.parametrize("cut", [1, 512, 1024, 5000])
def test_files_that_came_cut_off_are_unknown(cut: int) -> None:
    raw = tar_of(*(member(f"file{number}") for number in range(3)))

    with pytest.raises(TransientError, match="read /etc/kubernetes on rpi1"):
        files.received(section(raw[: 3 * 1024 - min(cut, 1024)]), machine="rpi1")
    with pytest.raises(TransientError, match="no answer"):
        files.received(None, machine="rpi1")


def test_a_sudo_that_refuses_is_told_with_the_page() -> None:
    refused = section(b"", stderr="sudo: a password is required\n")

    with pytest.raises(PermanentError, match=r"docs/etcd\.md#rights"):
        files.received(refused, machine="rpi1")


def test_a_machine_without_kubeadms_files_is_told() -> None:
    with pytest.raises(PermanentError, match="is it a control plane of kubeadm"):
        files.received(section(tar_of()), machine="rpi1")


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/../../b", "a//b", ""])
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(Unreadable):
        bundle.safe_path(name)


def test_files_below_a_root_are_those_that_ssh_would_bring(tmp_path: Path) -> None:
    root = write_root(tmp_path / "root")
    (root / files.LEFT_OUT / "kubeadm-backup-etcd").mkdir(parents=True)
    (root / files.LEFT_OUT / "kubeadm-backup-etcd/db").write_text("large")
    (root / "etc/kubernetes/large").write_bytes(b"x" * (files.MOST_BYTES + 1))
    (root / "etc/kubernetes/full").write_bytes(b"x" * files.MOST_BYTES)
    (root / "var/lib/kubelet/pki").mkdir()
    (root / "var/lib/kubelet/pki/current").symlink_to("there.pem")

    found = {file.path: file for file in files.below(root)}

    assert found.keys() == {*FILES, "var/lib/kubelet/pki/current", "etc/kubernetes/full"}
    assert found["var/lib/kubelet/pki/current"].link == "there.pem"


def test_a_root_without_them_is_told(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="host_root"):
        files.below(tmp_path)


# --- the tar ---


def packed(*extra: File, pages: bytes = b"p" * 1024) -> bytes:
    content = snapshot_of(pages)
    snapshot = Snapshot(
        size_bytes=len(content),
        pieces=iter([content[:100], content[100:]]),
    )
    node = tuple(bundle.of_node(file) for file in (*NODE, *extra))
    return b"".join(bundle.write(node, snapshot, SnapshotCheck(), modified_s=0))


def test_a_bundle_is_a_tar_that_unpacks_to_what_went_in(tmp_path: Path) -> None:
    odd = "etc/kubernetes/" + "long" * 40 + "/naïve\udcff name"
    link = File(path="var/lib/kubelet/pki/current", link="there.pem")
    (tmp_path / "tar").write_bytes(packed(File(path=odd, content=b"1", mode=0o644), link))

    found = unpack(tmp_path / "tar", tmp_path, promised_bytes=1056)

    assert found.files == len(FILES) + 2
    assert (tmp_path / "node" / odd).read_bytes() == b"1"
    assert (tmp_path / "node" / odd).stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "node/etc/kubernetes/pki/sa.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "node/var/lib/kubelet/pki/current").readlink() == Path("there.pem")
    assert (tmp_path / "snapshot.db").read_bytes() == snapshot_of(b"p" * 1024)


@given(cut=st.integers(1, 30_000))
def test_a_bundle_that_was_cut_anywhere_is_damaged(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    place = tmp_path_factory.mktemp("cut")
    whole = packed()
    (place / "tar").write_bytes(whole[: max(0, len(whole) - 1024 - min(cut, len(whole) - 1024))])

    with pytest.raises(Damaged):
        unpack(place / "tar", place, promised_bytes=1056)


def test_a_forged_bundle_writes_nothing_outside(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    for forged in (
        tar_of(member("../outside")),
        tar_of(member("/outside")),
        tar_of(member("pipe", type=tarfile.FIFOTYPE, size=0)),
        tar_of(member("hard", type=tarfile.LNKTYPE, linkname="/etc/passwd", size=0)),
    ):
        (tmp_path / "tar").write_bytes(forged)
        with pytest.raises(Damaged):
            unpack(tmp_path / "tar", inside, promised_bytes=0)

    through = (
        member("node/a", type=tarfile.SYMTYPE, linkname=str(tmp_path), size=0),
        member("node/a/outside"),
    )
    (tmp_path / "tar").write_bytes(tar_of(*through))
    with pytest.raises((Damaged, OSError)):
        unpack(tmp_path / "tar", inside, promised_bytes=0)
    assert not (tmp_path / "outside").exists()


# --- kubeadm's configuration out of etcd ---


def field(number: int, content: bytes) -> bytes:
    assert len(content) < 1 << 14
    length = len(content)
    size = bytes([length]) if length < 128 else bytes([length & 0x7F | 0x80, length >> 7])
    return bytes([number << 3 | 2]) + size + content


def stored(text: str, *, name: str = "ClusterConfiguration") -> bytes:
    entry = field(1, name.encode()) + field(2, text.encode())
    config_map = field(1, field(1, b"kubeadm-config")) + field(2, entry)
    unknown = field(1, field(1, b"v1")) + field(2, config_map) + field(3, b"")
    return b"k8s\0" + unknown


def test_the_cluster_configuration_is_read_as_etcd_holds_it() -> None:
    text = "kubernetesVersion: v1.36.3\n" + "x: y\n" * 100

    assert cluster_configuration(stored(text)) == text


def test_what_is_not_there_encrypted_or_of_another_kind_is_empty() -> None:
    assert cluster_configuration(None) == ""
    assert cluster_configuration(b"k8s:enc:aescbc:v1:key1:" + b"\xff" * 40) == ""
    assert cluster_configuration(stored("x", name="ClusterStatus")) == ""


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(raw: bytes) -> None:
    assert isinstance(cluster_configuration(b"k8s\0" + raw), str)


# --- judgements ---


def view(**changed: object) -> View:
    status = Status(
        header=Header(member_id="1"), version="3.6.6", db_size=700, db_size_in_use=600, leader="1"
    )
    made = View(status=status, members=(Member(id="1", name="rpi1"),), alarms=(), quota_bytes=1000)
    return dataclasses.replace(made, **changed)  # type: ignore[arg-type]


def told(one: View) -> list[tuple[str, str, Severity]]:
    found = health.about("etcd/main", one, percent=80)
    return [(finding.check, finding.subject, finding.severity) for finding in found]


@pytest.mark.parametrize(("quota", "is_told"), [(876, False), (875, True), (0, False)])
def test_space_is_told_from_the_percentage_on(quota: int, *, is_told: bool) -> None:
    expected = [("etcd.space_low", "etcd/main", Severity.WARNING)] if is_told else []

    assert told(view(quota_bytes=quota)) == expected


def test_alarms_members_and_errors_are_told_by_name() -> None:
    ill = view(
        alarms=(Alarm(member_id="2", alarm="CORRUPT"),),
        members=(
            Member(id="1", name="rpi1"),
            Member(id="2", name="rpi2", is_learner=True),
            Member(id="3"),
        ),
    )

    assert told(ill) == [
        ("etcd.alarm", "etcd/main/rpi2", Severity.CRITICAL),
        ("etcd.member_unhealthy", "etcd/main/rpi2", Severity.WARNING),
        ("etcd.member_unhealthy", "etcd/main/3", Severity.WARNING),
    ]


@pytest.mark.parametrize(
    ("leader", "is_learner", "is_fit"),
    [("1", False, True), ("0", False, False), ("1", True, False)],
)
def test_only_a_voter_with_a_leader_is_fit(leader: str, *, is_learner: bool, is_fit: bool) -> None:
    status = Status(header=Header(), leader=leader, is_learner=is_learner)

    assert (health.unfit(status) == "") is is_fit


# --- what a person is told to do ---


def test_the_commands_name_this_very_cluster() -> None:
    text = rebuild.readme(SOURCE)

    assert (
        "etcdutl snapshot restore ./snapshot.db --data-dir /var/lib/etcd --name rpi1"
        " --initial-cluster rpi1=https://10.0.0.11:2380"
        " --initial-advertise-peer-urls https://10.0.0.11:2380"
        " --bump-revision 1000000000 --mark-compacted"
    ) in text
    assert "host name rpi1, address 10.0.0.11, containerd, kubelet and kubeadm 1.36.3" in text


def test_a_place_with_odd_characters_is_quoted() -> None:
    (restore, back) = rebuild.steps(SOURCE, "/mnt/my disk; rm -rf")[3:5]

    assert "'/mnt/my disk; rm -rf/snapshot.db'" in restore
    assert "(cd '/mnt/my disk; rm -rf'/node && find" in back


# --- settings ---


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"recipients": []}, "never stored unencrypted"),
        ({"recipients": ["age1nonsense"]}, "not a valid public key"),
        ({"endpoints": ["10.0.0.11:2379"]}, "expected .https"),
        ({"endpoints": ["https://10.0.0.11:2379"]}, "need ca, certificate and key"),
        ({"endpoints": ["http://h"], "ca": "file:/x"}, "belong together"),
        ({"host_root": "/host"}, "mean nothing without endpoints"),
        ({"drill_dir": "here"}, "absolute"),
    ],
)
def test_settings_that_cannot_work_are_refused(changed: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Settings.model_validate({"repositories": ["usb"], "recipients": [KEY], **changed})


def test_the_key_of_the_example_is_never_used() -> None:
    made = Settings.model_validate({"repositories": ["usb"], "recipients": [KEY, EXAMPLE]})

    with pytest.raises(ConfigError, match="key of the example"):
        made.refuse_example()
    Settings.model_validate({"repositories": ["usb"], "recipients": [KEY]}).refuse_example()


def test_two_lines_are_enough_of_a_configuration() -> None:
    made = Settings.model_validate({"repositories": ["usb"], "recipients": [KEY]})

    assert (made.endpoints, made.drill, made.cluster) == ((), True, "main")
