"""With which flags and settings will the kubelet of this node start next time?

They come from four places: its configuration file, what kubeadm wrote beside it, what the
operator wrote to /etc/default, and the drop-ins of its unit; and from the command line with
which it runs now.

Limits: a drop-in that is hidden by one of the same name is read too; files that ``--config-dir``
names are not read.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opsd.hosts import yamltext
from opsd.hosts.kubeadm.listing import by_file
from opsd.hosts.script import Probe

CONFIG_FILE = "/var/lib/kubelet/config.yaml"
FLAGS_FILE = "/var/lib/kubelet/kubeadm-flags.env"
INSTANCE_FILE = "/var/lib/kubelet/instance-config.yaml"
DEFAULT_FILE = "/etc/default/kubelet"
RUNNING = "the running kubelet"

FILES_PROBE = Probe(
    name="kubelet-files", command=f"$root grep -s . {CONFIG_FILE} {FLAGS_FILE} {INSTANCE_FILE}"
)
UNIT_PROBE = Probe(
    name="kubelet-unit",
    command=f"grep -s . {DEFAULT_FILE} /etc/sysconfig/kubelet"
    " /etc/systemd/system/kubelet.service /etc/systemd/system/kubelet.service.d/*.conf"
    " /usr/lib/systemd/system/kubelet.service /usr/lib/systemd/system/kubelet.service.d/*.conf"
    " || :",
)
RUNNING_PROBE = Probe(
    name="kubelet-running",
    command="for pid in $(pidof kubelet); do tr '\\0' '\\n' </proc/$pid/cmdline; break; done",
)

_NAME = re.compile(r"[A-Za-z_]\w*=")
_COMMENTS = ("#", ";")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """Words of a command line, and where they stand."""

    place: str  #: a path, or `RUNNING`
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeletFiles:
    """What lies in /var/lib/kubelet."""

    config: Mapping[str, Any]  #: KubeletConfiguration
    flags: CommandLine | None  #: of kubeadm

    @property
    def gates(self) -> Mapping[str, bool]:
        """Feature gates of the configuration file."""
        gates = yamltext.inner(self.config, "featureGates")
        return {str(name): value is True for name, value in gates.items()}


def read_files(text: str) -> KubeletFiles:
    """The answer to `FILES_PROBE`.

    Raises:
        ValueError: the configuration is not there, or is none.
    """
    files = by_file(text)
    if CONFIG_FILE not in files:
        raise ValueError(f"no {CONFIG_FILE}: the kubelet was not set up by kubeadm")
    try:
        config = yamltext.mapping(files[CONFIG_FILE])
    except ValueError as exc:
        raise ValueError(f"{CONFIG_FILE}: {exc}") from exc
    words = words_of(files.get(FLAGS_FILE, ""))
    return KubeletFiles(
        config=config, flags=CommandLine(place=FLAGS_FILE, words=words) if words else None
    )


def read_unit(text: str) -> tuple[CommandLine, ...]:
    """The answer to `UNIT_PROBE`: what operators and packages added.

    Raises:
        ValueError: a file is no text.
    """
    found = ((path, words_of(content)) for path, content in by_file(text).items())
    return tuple(CommandLine(place=path, words=words) for path, words in found if words)


def read_running(text: str) -> CommandLine | None:
    """The answer to `RUNNING_PROBE`; None: it does not run, or is hidden from this user."""
    words = tuple(text.splitlines())
    return CommandLine(place=RUNNING, words=words[1:]) if words else None


def words_of(text: str) -> tuple[str, ...]:
    """The words that look like flags and their values in an environment file or a unit."""
    words: list[str] = []
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip().startswith(_COMMENTS):
            words.extend(_words_of_line(line))
    return tuple(words)


def _words_of_line(line: str) -> list[str]:
    try:
        parts = shlex.split(line)
    except ValueError:  # a quote that does not end
        parts = line.replace('"', " ").replace("'", " ").split()
    words: list[str] = []
    for part in parts:
        value = part
        while match := _NAME.match(value):  # Environment="KUBELET_EXTRA_ARGS=--a --b"
            value = value[match.end() :]
        words.extend(value.split())
    first = next((at for at, word in enumerate(words) if word.startswith("--")), len(words))
    return words[first:]
