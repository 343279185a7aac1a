"""How opsd finds a cluster and proves who it is, with real files and real programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from opsd import secrets
from opsd.clients.kube.access import SERVICE_ACCOUNT, find_cluster, from_kubeconfig, in_cluster
from opsd.clients.kube.cluster import TlsFiles, TokenFile
from opsd.errors import ConfigError


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a pod finds, projected as the kubelet does it: links to a folder that is exchanged."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-file"))
    mount = tmp_path / "serviceaccount"
    mount.mkdir()
    project(mount, "t0ken-one")
    for name in ("token", "ca.crt"):
        (mount / name).symlink_to(f"..data/{name}")
    return mount


def project(mount: Path, token: str) -> None:
    """Exchange the token as the kubelet does."""
    folder = mount / f"..{token or 'empty'}"
    folder.mkdir(exist_ok=True)
    (folder / "token").write_text(token)
    trustme.CA().cert_pem.write_to_path(folder / "ca.crt")
    (mount / "..new").symlink_to(folder.name)
    (mount / "..new").rename(mount / "..data")


def test_in_a_pod_nothing_needs_to_be_configured(mount: Path) -> None:
    cluster = find_cluster(mount=mount)

    assert cluster.url == "https://10.96.0.1:443"
    assert cluster.credentials.authorization() == "Bearer t0ken-one"
    assert cluster.proxy == ""
    assert len(cluster.tls().get_ca_certs()) == 1


def test_an_ipv6_address_is_written_as_urls_want_it(
    mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")

    assert in_cluster(mount).url == "https://[fd00::1]:443"


def test_no_proxy_of_the_environment_stands_between_a_pod_and_its_cluster(
    mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")

    assert find_cluster(mount=mount).proxy == ""


def test_a_token_that_was_exchanged_is_used_at_once(mount: Path) -> None:
    token = TokenFile(mount / "token")
    before = token.authorization()

    project(mount, "t0ken-two")

    assert (before, token.authorization()) == ("Bearer t0ken-one", "Bearer t0ken-two")


def test_a_token_that_was_left_empty_does_not_replace_one_that_worked(mount: Path) -> None:
    token = TokenFile(mount / "token")
    token.authorization()

    project(mount, "")
    emptied = token.authorization()
    (mount / "..data/token").unlink()
    removed = token.authorization()
    project(mount, "t0ken-two")

    assert (emptied, removed) == ("Bearer t0ken-one", "Bearer t0ken-one")
    assert token.authorization() == "Bearer t0ken-two"


def test_a_refused_token_is_renewed_only_if_there_is_another(mount: Path) -> None:
    token = TokenFile(mount / "token")
    token.authorization()

    same = token.renew()
    project(mount, "t0ken-two")

    assert (same, token.renew()) == (False, True)


def test_a_token_that_changed_in_place_within_one_tick_is_found_by_renewing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "token"
    path.write_text("aaaa")
    seen = path.stat()
    token = TokenFile(path)
    token.authorization()

    path.write_text("bbbb")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))

    assert token.renew()
    assert token.authorization() == "Bearer bbbb"


@pytest.mark.parametrize("content", [None, "", "\n", b"\xff\xfe"])
def test_without_any_token_the_file_is_named(tmp_path: Path, content: str | bytes | None) -> None:
    path = tmp_path / "token"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.write_text(content)

    with pytest.raises(ConfigError, match=str(path)):
        TokenFile(path).authorization()


def test_a_token_never_reaches_a_log(mount: Path) -> None:
    find_cluster(mount=mount).credentials.authorization()

    assert secrets.redact("Authorization: Bearer t0ken-one") == "Authorization: Bearer [redacted]"


def test_a_missing_authority_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no-such-ca"):
        TlsFiles(authority=tmp_path / "no-such-ca")()


def test_getting_in_from_a_pod_loads_no_large_package(mount: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from opsd.clients.kube import client, transport, watching
from opsd.clients.kube.access import find_cluster
find_cluster(mount=Path({str(mount)!r})).credentials.authorization()
print([name for name in ("kubernetes", "yaml", "urllib3", "requests") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_without_a_cluster_it_is_said_what_was_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/a:{tmp_path}/b")

    with pytest.raises(ConfigError, match=r"there is no Kubernetes cluster .not in a pod, and no"):
        find_cluster()
    with pytest.raises(ConfigError, match=r"/c: no such file .*set kubernetes\.kubeconfig"):
        find_cluster(kubeconfig=tmp_path / "c")


def test_a_service_address_without_a_mounted_token_is_no_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))

    with pytest.raises(ConfigError, match="there is no Kubernetes cluster"):
        find_cluster(mount=tmp_path)
    assert not (SERVICE_ACCOUNT / "token").exists()


def kubeconfig(path: Path, user: dict[str, object], **cluster: object) -> Path:
    """A file with two contexts, of which ``second`` leads elsewhere."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "one", "cluster": {"server": "https://one.test:6443/", **cluster}},
            {"name": "two", "cluster": {"server": "https://two.test:6443"}},
        ],
        "users": [{"name": "me", "user": user}],
        "contexts": [
            {"name": "first", "context": {"cluster": "one", "user": "me"}},
            {"name": "second", "context": {"cluster": "two", "user": "me"}},
        ],
        "current-context": "first",
    }
    path.write_text(json.dumps(config))
    return path


def test_the_configured_file_wins_over_the_pod_and_says_the_context(
    mount: Path, tmp_path: Path
) -> None:
    path = kubeconfig(tmp_path / "config", {"token": "static-token"})

    first = find_cluster(kubeconfig=path, mount=mount)
    second = find_cluster(kubeconfig=path, context="second", mount=mount)

    assert (first.url, second.url) == ("https://one.test:6443", "https://two.test:6443")
    assert first.credentials.authorization() == "Bearer static-token"
    assert secrets.redact("static-token") == "[redacted]"


def test_outside_of_a_pod_the_users_own_files_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    (tmp_path / ".kube").mkdir()
    kubeconfig(tmp_path / ".kube/config", {"token": "of-home"})
    kubeconfig(tmp_path / "other", {"token": "of-variable"})
    monkeypatch.setenv("HOME", str(tmp_path))

    monkeypatch.delenv("KUBECONFIG", raising=False)
    home = find_cluster()
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/absent:{tmp_path}/other")
    variable = find_cluster()

    assert home.credentials.authorization() == "Bearer of-home"
    assert variable.credentials.authorization() == "Bearer of-variable"


@pytest.mark.parametrize(
    ("content", "context", "told"),
    [
        ("", "", "file is empty"),
        ("{]", "", "cannot be read: ParserError"),
        ("- a\n- b\n", "", "kubeconfig .*: cannot be read|Invalid"),
        ('{"apiVersion": "v1"}', "", "Invalid|Expected|cannot be read"),
        (None, "third", "third"),
    ],
)
def test_a_wrong_file_is_told_with_its_name(
    tmp_path: Path, content: str | None, context: str, told: str
) -> None:
    path = kubeconfig(tmp_path / "config", {})
    if content is not None:
        path.write_text(content)

    with pytest.raises(ConfigError, match=rf"^kubeconfig {path}: ") as error:
        from_kubeconfig(str(path), context)
    error.match(told)


def plugin(path: Path, script: str) -> dict[str, object]:
    """A user whose token comes from a program."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    version = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": version, "command": str(path), "interactiveMode": "Never"}}


def credential(token: str, **more: str) -> str:
    version = "client.authentication.k8s.io/v1"
    status = {"token": token, **more}
    return json.dumps({"kind": "ExecCredential", "apiVersion": version, "status": status})


def test_the_token_of_an_exec_plugin_is_used_until_it_expires(tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("")
    old = credential("old", expirationTimestamp="2020-01-01T00:00:00Z")
    user = plugin(tmp_path / "plugin", f"echo x >>{count}; echo '{old}'")
    cluster = from_kubeconfig(str(kubeconfig(tmp_path / "config", user)))
    (tmp_path / "plugin").write_text(f"#!/bin/sh\necho '{credential('fresh')}'\n")

    value = cluster.credentials.authorization()

    assert value == "Bearer fresh"
    assert count.read_text() == "x\n"


def test_an_exec_plugin_that_fails_is_an_error_with_its_own_words(tmp_path: Path) -> None:
    user = plugin(tmp_path / "plugin", "echo 'log in first: kubelogin' >&2; exit 3")

    with pytest.raises(ConfigError, match=r"kubeconfig .*config: no credentials: .*log in first"):
        from_kubeconfig(str(kubeconfig(tmp_path / "config", user)))


def test_credentials_that_were_refused_are_read_again(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", {"token": "first"})
    credentials = from_kubeconfig(str(path)).credentials

    same = credentials.renew()
    kubeconfig(path, {"token": "second"})

    assert (same, credentials.renew()) == (False, True)
    assert credentials.authorization() == "Bearer second"


@pytest.mark.parametrize(
    ("proxy", "no_proxy", "used"),
    [
        ("http://proxy.test:3128", "", "http://proxy.test:3128"),
        ("http://proxy.test:3128", "one.test", ""),
        ("", "", ""),
    ],
)
def test_a_proxy_of_the_file_is_used_unless_the_environment_excepts_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str, no_proxy: str, used: str
) -> None:
    monkeypatch.setenv("NO_PROXY", no_proxy)
    cluster = {"proxy-url": proxy} if proxy else {}
    path = kubeconfig(tmp_path / "config", {"token": "t"}, **cluster)

    assert from_kubeconfig(str(path)).proxy == used


def test_a_proxy_that_is_not_known_is_told(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "c", {"token": "t"}, **{"proxy-url": "socks5://proxy.test:1080"})

    with pytest.raises(ConfigError, match=r"socks5://proxy.test:1080 .* is not supported"):
        from_kubeconfig(str(path))
