"""Flags are found wherever people write them for the kubelet."""

from __future__ import annotations

import pytest

from opsd.hosts.kubeadm import kubelet


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('KUBELET_EXTRA_ARGS="--v=2 --foo bar"', ("--v=2", "--foo", "bar")),
        ("KUBELET_EXTRA_ARGS=--feature-gates=A=true,B=false", ("--feature-gates=A=true,B=false",)),
        ("Environment=\"KUBELET_EXTRA_ARGS=--a --b='c'\"", ("--a", "--b='c'")),
        ("Environment='A=--a' 'B=--b'", ("--a", "--b")),
        ("ExecStart=/usr/bin/kubelet $KUBELET_ARGS --c", ("--c",)),
        ("ExecStart=/usr/bin/kubelet \\\n    --a \\\n    --b", ("--a", "--b")),
        ("# KUBELET_EXTRA_ARGS=--a\n; --b\n  # --c", ()),
        ('KUBELET_EXTRA_ARGS="--a', ("--a",)),
        ("EnvironmentFile=-/etc/default/kubelet", ()),
        ("export KUBELET_EXTRA_ARGS=--a", ("--a",)),
        ("", ()),
    ],
)
def test_words_of_a_command_line_are_found(text: str, words: tuple[str, ...]) -> None:
    assert kubelet.words_of(text) == words


def test_gates_and_flags_of_kubeadm_are_read_from_its_files() -> None:
    read = kubelet.read_files(
        "/var/lib/kubelet/config.yaml:kind: KubeletConfiguration\n"
        "/var/lib/kubelet/config.yaml:featureGates:\n"
        "/var/lib/kubelet/config.yaml:  A: true\n"
        "/var/lib/kubelet/config.yaml:  B: false\n"
        '/var/lib/kubelet/kubeadm-flags.env:KUBELET_KUBEADM_ARGS="--hostname-override=x"\n'
    )

    assert read.gates == {"A": True, "B": False}
    assert read.flags == kubelet.CommandLine(
        place="/var/lib/kubelet/kubeadm-flags.env", words=("--hostname-override=x",)
    )


def test_without_flags_of_kubeadm_there_are_none() -> None:
    assert kubelet.read_files("/var/lib/kubelet/config.yaml:kind: X\n").flags is None


@pytest.mark.parametrize("text", ["", "/var/lib/kubelet/config.yaml:{\n"])
def test_a_configuration_that_is_missing_or_none_is_an_error_that_names_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"/var/lib/kubelet/config\.yaml"):
        kubelet.read_files(text)


def test_every_file_of_the_unit_is_read_by_itself() -> None:
    read = kubelet.read_unit(
        "/etc/default/kubelet:KUBELET_EXTRA_ARGS=--a\n/usr/lib/systemd/x.conf:[Service]\n"
    )

    assert read == (kubelet.CommandLine(place="/etc/default/kubelet", words=("--a",)),)


def test_the_running_kubelet_says_its_flags_and_none_where_it_does_not_run() -> None:
    running = kubelet.read_running("/usr/bin/kubelet\n--a=b c\n--d\n")

    assert running
    assert running.words == ("--a=b c", "--d")
    assert kubelet.read_running("") is None
