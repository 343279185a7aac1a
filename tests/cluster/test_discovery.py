"""Where the programs of the control plane are looked for, and what happens without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rig import controlplane
from tests.rig.controlplane import NEWEST, OLDEST, PROGRAMS


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, on a machine without other programs, outside CI."""
    monkeypatch.setattr(controlplane, "CACHE", tmp_path / "cache")
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.delenv("CI", raising=False)
    return tmp_path / "cache"


def fill(folder: Path, programs: tuple[str, ...] = PROGRAMS) -> Path:
    folder.mkdir(parents=True)
    for name in programs:
        (folder / name).touch(mode=0o755)
    return folder


def test_assets_of_the_environment_come_first(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(cache / "control-plane" / NEWEST)
    assets = fill(tmp_path / "assets")

    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))

    assert controlplane.bin_dir() == assets


def test_assets_without_a_controller_manager_are_passed_over(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = fill(cache / "control-plane" / NEWEST)
    assets = fill(tmp_path / "assets", ("etcd", "kube-apiserver", "kubectl"))

    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))

    assert controlplane.bin_dir() == built


def test_assets_of_the_environment_are_never_taken_for_the_oldest_release(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = fill(cache / "control-plane" / OLDEST)

    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(fill(tmp_path / "assets")))

    assert controlplane.bin_dir(OLDEST) == built


@pytest.mark.usefixtures("cache")
def test_a_missing_control_plane_skips_at_the_desk_and_says_what_to_do() -> None:
    with pytest.raises(pytest.skip.Exception, match="make control-plane`"):
        controlplane.bin_dir()


@pytest.mark.usefixtures("cache")
def test_a_missing_control_plane_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")

    with pytest.raises(pytest.fail.Exception, match="make control-plane`"):
        controlplane.bin_dir()


@pytest.mark.usefixtures("cache")
def test_the_oldest_release_may_be_missing_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")

    with pytest.raises(pytest.skip.Exception, match=f"MINOR={OLDEST}"):
        controlplane.bin_dir(OLDEST)
