"""Versions are compared as numbers, wherever they were written."""

from __future__ import annotations

import pytest

from opsd.upgrade.version import Minor, Version


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("v1.36.2", (1, 36, 2)),
        ("1.36", (1, 36, 0)),
        ("1.35.3-1.1", (1, 35, 3)),
        ("3.6.6-0", (3, 6, 6)),
        ("v1.34.1+k3s1", (1, 34, 1)),
        ("6.12.34+rpt-rpi-2712", (6, 12, 34)),
        ("1.7.24~ds1", (1, 7, 24)),
    ],
)
def test_a_version_is_read_however_it_is_written(text: str, numbers: tuple[int, ...]) -> None:
    version = Version.parse(text)

    assert (version.major, version.number, version.patch) == numbers


@pytest.mark.parametrize("text", ["", "latest", "1", "1.x", "sha256:00"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no version"):
        Version.parse(text)


def test_patches_are_compared_as_numbers() -> None:
    assert Version.parse("1.35.10") > Version.parse("1.35.9")


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("registry.k8s.io/etcd:3.6.6-0", "3.6.6"),
        ("registry.test:5000/kube-proxy:v1.35.4@sha256:00", "1.35.4"),
    ],
)
def test_the_tag_of_an_image_says_its_version(image: str, version: str) -> None:
    assert str(Version.of_image(image)) == version


@pytest.mark.parametrize(
    "image", ["etcd", "registry.test:5000/etcd", "etcd@sha256:00", "a:latest"]
)
def test_an_image_without_a_version_in_its_tag_is_refused(image: str) -> None:
    with pytest.raises(ValueError, match=r"no (tag|version)"):
        Version.of_image(image)


def test_minor_releases_know_their_neighbours_and_their_distance() -> None:
    minor = Minor.parse("v1.36")

    assert (str(minor.previous), str(minor.next)) == ("1.35", "1.37")
    assert minor - Minor.parse("1.33") == 3
    assert Minor.parse("1.9") < Minor.parse("1.10")


@pytest.mark.parametrize("text", ["1.36.2", "36", "", "1.", "next"])
def test_what_is_no_minor_release_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write it like 1\.36"):
        Minor.parse(text)
