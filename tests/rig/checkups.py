"""Ask one part of a machine's health: real scripts on a tree of files that looks like hardware.

Here is no Raspberry Pi, no card and no RAID. The script of a part runs as it is, by a real
shell, with `/sys`, `/proc`, `/etc` and `/dev` moved below a folder that a test fills, and with
programs that print what the real ones do.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from opsd.hosts.health.look import Answer, Boot, Look, Part, Thresholds
from opsd.hosts.machine import Machine, Role
from opsd.hosts.script import Probe, Script, Section
from opsd.testing import START

RPI = Machine(name="rpi3", address="10.0.0.3", roles=frozenset({Role.NODE}))
SHELLS = tuple(shell for shell in ("dash", "bash", "busybox") if shutil.which(shell))
UPTIME_S = 50_000.0
_MOVED = ("/sys/", "/proc/", "/etc/", "/dev/sd", "/dev/nvme")
_FOLDERS = ("sys/class/net", "sys/class/hwmon", "sys/block", "sys/fs", "proc", "etc", "bin")


def look_at(part: Part, sections: Mapping[str, Section | str], **about: Any) -> Look:
    """A look at answers; those that are text are stdout of what succeeded."""
    made = {
        name: Section(name=name, stdout=answer, stderr="", status=0)
        if isinstance(answer, str)
        else answer
        for name, answer in sections.items()
    }
    standard = Look(
        machine=RPI,
        part=part.name,
        sections=made,
        at=START,
        boot=Boot(id="b1", uptime_s=UPTIME_S),
        is_same_boot=True,
        thresholds=Thresholds(),
    )
    return replace(standard, **about)


def judged(part: Part, sections: Mapping[str, Section | str], **about: Any) -> Answer:
    """What comes of a look at answers."""
    return part.read(look_at(part, sections, **about))


def again(part: Part, before: Answer, text: str, *, after: timedelta, **about: Any) -> Answer:
    """What comes of a later look at the answer of a part's only probe."""
    at = START + after
    return judged(part, {part.probes[0].name: text}, kept=before.kept, at=at, **about)


class Tree:
    """Files that look like those of a machine, and programs for it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in _FOLDERS:
            (root / folder).mkdir(parents=True)
        self.write("proc/version", "Linux version 6.12\n")
        self.write("proc/loadavg", "0.1 0.1 0.1 1/100 100\n")
        self.write("proc/uptime", f"{UPTIME_S} 1.0\n")
        self.write("proc/self/mountinfo", "")

    def write(self, path: str, content: str) -> None:
        """Write a file, with the folders above it."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)

    def files(self, folder: str, contents: Mapping[str, object]) -> None:
        """Write files of one line each."""
        for name, content in contents.items():
            self.write(f"{folder}/{name}", f"{content}\n")

    def program(self, name: str, script: str) -> None:
        """Put a shell script where the machine has its programs."""
        self.write(f"bin/{name}", f"#!/bin/sh\n{script}\n")
        (self.root / "bin" / name).chmod(0o755)

    def ask(self, part: Part, *, shell: str = "dash") -> Mapping[str, Section]:
        """What the script of a part says of the tree."""
        moved = Script.of(replace(probe, command=self._moved(probe)) for probe in part.probes)
        text = moved.text.replace(" PATH=/usr/sbin", f" PATH={self.root}/bin:/usr/sbin")
        argv = [shell, "sh"] if shell == "busybox" else [shell]
        done = subprocess.run(argv, input=text.encode(), capture_output=True, check=True)
        back = f"{self.root}".encode()
        return moved.read(done.stdout.replace(back, b""), done.stderr.replace(back, b""))

    def _moved(self, probe: Probe) -> str:
        command = probe.command
        for path in _MOVED:
            command = command.replace(path, f"{self.root}{path}")
        return command

    def judged(self, part: Part, *, shell: str = "dash", **about: Any) -> Answer:
        """What comes of a look at the tree."""
        return judged(part, self.ask(part, shell=shell), **about)
