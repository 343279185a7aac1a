from __future__ import annotations

import os
from pathlib import Path

import pytest

from opsd.backup.postgres import tools as pgtools
from opsd.backup.postgres.tools import ClientMissing, Tools
from opsd.clients.pgserver import Server
from opsd.clock import Deadline, SystemClock
from opsd.errors import ConfigError
from opsd.secrets import Secret


def tools(*majors: int) -> tuple[Tools, ...]:
    return tuple(Tools(bin_dir=Path(f"/pg/{n}"), major=n, version=f"{n}.1") for n in majors)


def programs(directory: Path, version: str) -> Path:
    directory.mkdir(parents=True)
    for name in pgtools.PROGRAMS:
        (directory / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (directory / name).chmod(0o755)
    return directory


def deadline() -> Deadline:
    return Deadline.after(30, SystemClock())


@pytest.mark.parametrize(
    ("installed", "server", "chosen"),
    [((14, 16, 18), 16, 16), ((14, 17, 18), 16, 17), ((18,), 14, 18)],
)
def test_the_servers_own_major_dumps_it_else_the_next_newer(
    installed: tuple[int, ...], server: int, chosen: int
) -> None:
    assert pgtools.for_dump(tools(*installed), server).major == chosen


@pytest.mark.parametrize("installed", [(), (14, 15)])
def test_no_program_new_enough_is_told_with_its_package(installed: tuple[int, ...]) -> None:
    with pytest.raises(ClientMissing, match="apt-get install postgresql-client-16"):
        pgtools.for_dump(tools(*installed), 16)


@pytest.mark.parametrize(
    ("installed", "dumped_with", "server", "chosen"),
    [
        ((14, 15, 16, 17, 18), 16, 16, 16),
        ((14, 15, 16, 17, 18), 14, 18, 18),
        ((15, 17), 14, 16, 15),
        ((14, 18), 15, 16, 18),
        ((17, 18), 18, 16, 18),
    ],
)
def test_a_restore_reads_the_archive_and_stays_close_to_the_server(
    installed: tuple[int, ...], dumped_with: int, server: int, chosen: int
) -> None:
    found = pgtools.for_restore(tools(*installed), dumped_with=dumped_with, server_major=server)

    assert found.major == chosen


def test_an_archive_newer_than_every_program_is_refused() -> None:
    with pytest.raises(ClientMissing, match="postgresql-client-18"):
        pgtools.for_restore(tools(14, 17), dumped_with=18, server_major=17)


def test_configured_directories_come_first_and_are_asked_their_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgtools, "DEBIAN_DIRS", str(tmp_path / "debian"))
    programs(tmp_path / "debian/16/bin", "16.1 (Debian 16.1-1)")
    programs(tmp_path / "debian/17/bin", "17.11")
    own = programs(tmp_path / "own", "16.15")
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", os.environ["PATH"])

    found = pgtools.installed([tmp_path / "empty", own], deadline=deadline())

    by_major = {one.major: one for one in found}
    assert by_major[16] == Tools(bin_dir=own, major=16, version="16.15")
    assert by_major[17].version == "17.11"
    assert [one.major for one in found] == sorted(by_major, reverse=True)


def test_a_directory_that_lacks_a_program_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgtools, "DEBIAN_DIRS", str(tmp_path / "none"))
    partial = programs(tmp_path / "partial", "99.1")
    (partial / "pg_restore").unlink()

    found = pgtools.installed([partial], deadline=deadline())

    assert 99 not in {one.major for one in found}


def test_debians_wrapper_that_chooses_a_version_itself_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgtools, "DEBIAN_DIRS", str(tmp_path / "none"))
    wrapper = programs(tmp_path / "share", "99.1") / "pg_dump"
    wrapper.rename(wrapper.with_name("pg_wrapper"))
    links = programs(tmp_path / "bin", "99.1")
    (links / "pg_dump").unlink()
    (links / "pg_dump").symlink_to(wrapper.with_name("pg_wrapper"))

    found = pgtools.installed([links], deadline=deadline())

    assert 99 not in {one.major for one in found}


@pytest.mark.parametrize(
    ("major", "method", "option"),
    [
        (15, "gzip:1", "--compress=1"),
        (16, "gzip:1", "--compress=gzip:1"),
        (16, "zstd:1", "--compress=zstd:1"),
    ],
)
def test_compression_is_written_as_the_program_reads_it(
    major: int, method: str, option: str
) -> None:
    assert pgtools.compress_option(tools(major)[0], method) == option


@pytest.mark.parametrize(
    ("name", "written"),
    [("app", "dbname='app'"), ("it's", r"dbname='it\'s'"), ("a\\b", r"dbname='a\\b'")],
)
def test_a_name_in_a_connection_string_stays_a_name(name: str, written: str) -> None:
    assert pgtools.conninfo(name) == written


def test_the_environment_holds_no_password_and_ignores_the_users_own_file() -> None:
    server = Server(name="main", host="db", port=5433, user="me")

    with pgtools.environment(server, "host=evil") as env:
        assert env["PGDATABASE"] == "host=evil"
        assert env["PGPORT"] == "5433"
        assert env["PGPASSFILE"] == "/dev/null"
        assert "PGPASSWORD" not in env


def test_a_password_with_a_line_break_is_refused(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("two\nlines\n")
    server = Server(name="main", host="db", password=Secret(f"file:{tmp_path}/password"))

    with pytest.raises(ConfigError, match="line break"), pgtools.environment(server, "app"):
        pass
