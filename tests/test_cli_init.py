"""`opsd init` writes what loads, says what is a guess, and takes nothing away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import JOBS, nfs_backup, postgres_backup
from opsd.cli import main
from opsd.cli.firstconfig import Seen, text_of
from opsd.clients.kube.answers import decoder
from opsd.clients.kube.objects import Deployment, PersistentVolume, StorageClass
from opsd.cluster.site import Export, Site, exports_of
from opsd.configfile import Config, load
from tests.pgobjects import cnpg, found, service, workload

EXPORT = Export(server="nas", path="/srv/nfs", source="deployment nfs/provisioner", volumes=3)


@pytest.fixture(autouse=True)
def machine_without_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "OPSD_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def loaded(text: str, folder: Path) -> Config:
    path = folder / "loaded.toml"
    path.write_text(text)
    return load(path, JOBS)


def share_of(config: Config) -> nfs_backup.ShareTable:
    settings = config.jobs["nfs-backup"].settings
    assert isinstance(settings, nfs_backup.Settings)
    [share] = settings.shares
    return share


def test_without_a_cluster_a_file_is_written_that_loads(tmp_path: Path) -> None:
    status = main(["init"])

    assert status == 0
    config = load(tmp_path / "config.toml", JOBS)
    assert list(config.repositories) == ["backup"]
    assert main(["config", "show"]) == 0


def test_a_file_that_is_there_is_never_overwritten_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("# mine\n")

    refused = main(["--config", str(path), "init"])
    kept = path.read_text()
    forced = main(["--config", str(path), "init", "--force"])

    assert (refused, forced) == (2, 0)
    assert kept == "# mine\n"
    assert "[repositories.backup]" in path.read_text()
    assert f"{path} is there already; --force overwrites it" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["mine.toml"]


def test_it_can_be_printed_instead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = main(["init", "-o", "-"])
    text = capsys.readouterr().out
    as_json = main(["init", "-o", "json"])
    answer = json.loads(capsys.readouterr().out)

    assert (printed, as_json) == (0, 0)
    assert loaded(text, tmp_path).repositories
    assert answer == {"config": text, "error": ""}
    assert not (tmp_path / "config.toml").exists()


def test_it_can_be_written_elsewhere(tmp_path: Path) -> None:
    assert main(["init", "-o", str(tmp_path / "other.toml")]) == 0

    assert (tmp_path / "other.toml").exists()
    assert not (tmp_path / "config.toml").exists()


def test_a_folder_that_is_not_there_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "-o", str(tmp_path / "no/config.toml")]) == 2

    assert "No such file or directory" in capsys.readouterr().err


def test_a_kubeconfig_that_is_not_there_is_an_error_and_not_no_cluster(tmp_path: Path) -> None:
    assert main(["init", "--kubeconfig", str(tmp_path / "gone")]) == 2

    assert not (tmp_path / "config.toml").exists()


def test_a_cluster_has_its_databases_discovered_and_shown(tmp_path: Path) -> None:
    databases = found(
        workload(), service(), cnpg(annotations={"opsd.dev/backup": "false"}),
        workload(name="lost"),
    )  # fmt: skip
    seen = Seen(site=Site(nodes=("rpi1", "rpi2"), databases=databases), kubeconfig="/k")

    text = text_of(seen)

    settings = loaded(text, tmp_path).jobs["postgres-backup"].settings
    assert isinstance(settings, postgres_backup.Settings)
    assert settings.discover is True
    assert "# Found now: db.pg: statefulset db/pg at pg.db.svc:5432" in text
    assert "# Cannot be used: statefulset db/lost: no Service leads to it" in text
    assert '# Left out by opsd.dev/backup: "false": db.main' in text
    assert "2 nodes: rpi1, rpi2" in text
    assert 'kubeconfig = "/k"' in text


def test_a_mounted_share_is_named_by_its_place_and_another_is_a_guess(tmp_path: Path) -> None:
    site = Site(exports=(EXPORT,))
    mounted = text_of(Seen(site=site, mounts={("nas", "/srv/nfs"): "/media/nas"}))
    guessed = text_of(Seen(site=site))

    assert share_of(loaded(mounted, tmp_path)).path == Path("/media/nas")
    assert "Guess: it is not mounted" not in mounted
    assert share_of(loaded(guessed, tmp_path)).path == Path("/mnt/nfs")
    assert "mount -t nfs -o ro nas:/srv/nfs /mnt/nfs" in guessed
    assert "from deployment nfs/provisioner; 3 volumes lie on it" in guessed


def test_several_shares_have_names_of_their_own(tmp_path: Path) -> None:
    other = Export(server="nas", path="/srv/media", source="storageclass media")

    config = loaded(text_of(Seen(site=Site(exports=(EXPORT, other)))), tmp_path)

    settings = config.jobs["nfs-backup"].settings
    assert isinstance(settings, nfs_backup.Settings)
    assert [one.name for one in settings.shares] == ["nfs-1", "nfs-2"]


def test_a_server_on_this_machine_is_written_down(tmp_path: Path) -> None:
    config = loaded(text_of(Seen(socket_dir="/var/run/postgresql")), tmp_path)

    settings = config.jobs["postgres-backup"].settings
    assert isinstance(settings, postgres_backup.Settings)
    assert settings.servers[0].host == "/var/run/postgresql"


@pytest.mark.parametrize("name", ['a"b', "a\nb = 1", "a\\b", "ä\x1b[31m", "a'''b"])
def test_hostile_names_stay_within_their_strings_and_comments(tmp_path: Path, name: str) -> None:
    export = Export(server=name, path=f"/{name}", source=name)
    mounts = {(name, f"/{name}"): f"/mnt/{name}"}
    seen = Seen(
        site=Site(nodes=(name,), exports=(export,)),
        mounts=mounts,
        site_error=name,
        kubeconfig=f"/{name}",
        timezone_source=name,
    )

    config = loaded(text_of(seen), tmp_path)

    assert share_of(config).path == Path(f"/mnt/{name}")


def deployment(**env: str) -> Deployment:
    one = {"name": "p", "env": [{"name": key, "value": value} for key, value in env.items()]}
    item = workload(one, kind="Deployment", name="provisioner", namespace="nfs")
    return decoder(Deployment).decode(json.dumps(item).encode())


def volume(name: str, **spec: object) -> PersistentVolume:
    item = {"metadata": {"name": name, "uid": name}, "spec": spec}
    return decoder(PersistentVolume).decode(json.dumps(item).encode())


def on_nfs(name: str, path: str, server: str = "nas") -> PersistentVolume:
    return volume(name, nfs={"server": server, "path": path})


def on_csi(name: str, subdir: str) -> PersistentVolume:
    attributes = {"server": "nas", "share": "/csi", "subdir": subdir}
    source = {"driver": "nfs.csi.k8s.io", "volumeHandle": name, "volumeAttributes": attributes}
    return volume(name, csi=source)


def storage_class(provisioner: str) -> StorageClass:
    item = {
        "metadata": {"name": "fast", "uid": "x"},
        "provisioner": provisioner,
        "parameters": {"server": "nas", "share": "/csi"},
    }
    return decoder(StorageClass).decode(json.dumps(item).encode())


def test_exports_are_known_from_provisioners_classes_and_volumes() -> None:
    exports = exports_of(
        [deployment(NFS_SERVER="nas", NFS_PATH="/srv/nfs"), deployment(NFS_SERVER="nas")],
        [storage_class("nfs.csi.k8s.io"), storage_class("example.org/other")],
        [
            on_nfs("a", "/srv/nfs/db-data"),
            on_nfs("b", "/srv/nfs-2/x"),
            on_nfs("c", "/srv/nfs/x", server="nas2"),
            on_csi("d", "media"),
            volume("e", hostPath={"path": "/data"}),
        ],
    )

    assert [(one.server, one.path, one.source, one.volumes) for one in exports] == [
        ("nas", "/csi", "storageclass fast", 1),
        ("nas", "/srv/nfs", "deployment nfs/provisioner", 1),
        ("nas", "/srv/nfs-2", "persistentvolume b", 1),
        ("nas2", "/srv/nfs", "persistentvolume c", 1),
    ]
