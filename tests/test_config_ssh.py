"""The tables about logins: what is wrong with them is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs import JOBS
from opsd.configfile import load
from opsd.errors import ConfigError

SSH = '[ssh]\nkey = "file:/etc/opsd/ssh_key"\n'


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(f"[opsd]\n{text}")
    return path


def test_without_a_table_nothing_logs_in_anywhere(tmp_path: Path) -> None:
    assert load(written(tmp_path, ""), JOBS).document.ssh is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[ssh]\n", "ssh.key"),
        ('[ssh]\nkey = "-----BEGIN"\n', "expected a reference"),
        (f'{SSH}known_hosts = "hosts"\n', "must be an absolute path"),
        (f'{SSH}known_hosts_configmap = "hosts"\n', "ssh.known_hosts_configmap"),
        (f"{SSH}at_once = 0\n", "ssh.at_once"),
        (f"{SSH}at_once = 65\n", "ssh.at_once"),
        (f'{SSH}[[machines]]\naddress = "10.0.0.2"\n', "machines[0].name"),
        (f'{SSH}[[machines]]\nname = "a b"\n', "machines[0].name"),
        (f'{SSH}[[machines]]\nname = "a"\nport = 0\n', "machines[0].port"),
        (f'{SSH}[[machines]]\nname = "a"\nroles = ["node"]\n', "machines[0].roles"),
        (f'{SSH}[[machines]]\nname = "a"\n[[machines]]\nname = "a"\n', "machines[1].name"),
    ],
)
def test_what_is_wrong_with_logins_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        load(written(tmp_path, text), JOBS)
