"""A person asks whether the cluster can be upgraded: the answer, its cost and its exit status."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rig import controlplane
from tests.rig.controlplane import FAST, OLDEST
from tests.rig.home import Home
from tests.rig.kubeadm import WORKERS, Kubeadm

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]

RBAC = Path(__file__).parents[2] / "deploy/rbac/upgrade-readiness.yaml"
ACCOUNT = "system:serviceaccount:opsd:opsd"
JOB = ("run-job", "upgrade-readiness")
TABLE = """
[kubernetes]
kubeconfig = "{kubeconfig}"

[jobs.upgrade-readiness]
"""
#: Versions that only alpha clusters have, such as those that 1.36 removes.
ALPHA = {"runtime-config": "api/all=true", "feature-gates": "AllAlpha=true"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Kubeadm]:
    clock = dataclasses.replace(FAST, apiserver={**FAST.apiserver, **ALPHA})
    with controlplane.running(OLDEST, clock=clock) as plane:
        plane.namespace("opsd")
        account = {"name": "opsd", "namespace": "opsd"}
        plane.api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
        plane.api.create(*yaml.safe_load_all(RBAC.read_text()))
        yield Kubeadm(plane)


@pytest.fixture
def home(cluster: Kubeadm, tmp_path: Path) -> Home:
    made = Home(place=tmp_path / "home")
    made.place.mkdir()
    made.write(TABLE.format(kubeconfig=cluster.control_plane.kubeconfig_of("opsd", "opsd")))
    return made


def asked(home: Home, *more: str) -> tuple[int, dict[str, Any]]:
    """The exit status and the run."""
    said = home.opsd(*JOB, "-o", "json", *more)
    assert said.out, said.err
    (run,) = json.loads(said.out)["runs"]
    return said.status, run


def checks(run: dict[str, Any], check: str) -> list[dict[str, Any]]:
    return [one for one in run["report"]["checks"] if one["id"] == check]


def told(one: dict[str, Any]) -> str:
    return "; ".join(f"{note['where']}: {note['value']}" for note in one["evidence"])


def test_six_nodes_take_fewer_than_sixty_calls_and_nothing_is_written(
    cluster: Kubeadm, home: Home
) -> None:
    mark = cluster.control_plane.audit.mark()

    asked(home, "--to", "1.37")

    calls = cluster.control_plane.audit.calls(user=ACCOUNT, since=mark)
    refused = [str(call) for call in calls if call.code == 403]
    assert 20 < len(calls) < 60
    assert {call.verb for call in calls} == {"get", "list"}
    # The only right that is not in the file on purpose.
    assert refused == ["get nodes/proxy rpi1: 403"]


def test_with_the_rights_of_the_file_every_fact_of_the_api_is_read(home: Home) -> None:
    _, run = asked(home)

    unknown = [one for one in run["report"]["checks"] if one["status"] == "unknown"]
    assert not [told(one) for one in unknown if "403" in told(one) or "Forbidden" in told(one)]


def test_what_is_in_the_way_makes_the_exit_status_and_one_warning_each(home: Home) -> None:
    status, run = asked(home)

    blocked = [one for one in run["findings"] if one["check"] == "upgrade.blocked"]
    names = [one["subject"].rpartition("/")[2] for one in blocked]
    assert (status, run["outcome"]) == (3, "completed")
    assert run["report"]["verdict"] == "blocked"
    assert sorted(names) == sorted(run["report"]["blocked_by"])
    # Nobody can log in to the machines of this test.
    assert {"certificates", "etcd-snapshot"} <= set(names)


def test_the_exit_status_can_be_asked_for_otherwise(home: Home) -> None:
    status, _ = asked(home, "--fail-on", "critical")

    assert status == 0


def test_the_page_is_what_a_person_sees(home: Home) -> None:
    said = home.opsd(*JOB)

    lines = said.out.splitlines()
    assert lines[0].startswith("# Kubernetes 1.35 → 1.36 is blocked by")
    assert any(line.startswith("       rpi1# kubeadm upgrade apply") for line in lines)
    assert "Dry run" not in said.out


def test_the_second_report_says_what_came_into_the_way_and_what_went(
    cluster: Kubeadm, home: Home
) -> None:
    bare = cluster.pod("debug", WORKERS[0], namespace="web")

    asked(home)
    with cluster.with_(bare):
        _, worse = asked(home)
    _, mended = asked(home)

    assert worse["report"]["since"]["new"] == ["bare-pods"]
    assert mended["report"]["since"]["gone"] == ["bare-pods"]


def test_asking_about_another_release_records_nothing(home: Home) -> None:
    status, run = asked(home, "--to", "1.37")

    history = json.loads(home.opsd("history", "-o", "json").out)
    assert status == 3
    assert run["report"]["target"] == "1.37"
    assert [(hop["from"], hop["to"]) for hop in run["report"]["hops"]] == [
        ("1.35", "1.36"),
        ("1.36", "1.37"),
    ]
    assert history["runs"] == []


def test_a_configured_target_that_was_reached_gives_way_to_the_next_release(home: Home) -> None:
    home.config.write_text(home.config.read_text() + 'to = "1.35"\n')

    _, run = asked(home)

    assert (run["outcome"], run["report"]["target"]) == ("completed", "1.36")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--to", "soon"), "write it like 1.36"),
        (("--to", "1.36.2"), "write it like 1.36"),
    ],
)
def test_what_is_no_release_is_a_usage_error(home: Home, argv: tuple[str, ...], said: str) -> None:
    answer = home.opsd(*JOB, *argv)

    assert answer.status == 2
    assert said in answer.err


@pytest.mark.parametrize("target", ["1.34", "1.35", "1.99"])
def test_a_release_that_cannot_be_reached_fails_and_says_why(home: Home, target: str) -> None:
    status, run = asked(home, "--to", target)

    assert status == 1
    assert f"to {target}" in run["error"]


def test_an_api_that_is_really_asked_for_is_in_the_way_of_the_release_that_removes_it(
    cluster: Kubeadm, home: Home
) -> None:
    cluster.api.get("/apis/networking.k8s.io/v1beta1/servicecidrs")
    cluster.api.get("/api/v1/endpoints")

    _, run = asked(home, "--to", "1.37")

    first, second = checks(run, "deprecated-apis")
    use = "servicecidrs.v1beta1.networking.k8s.io"
    assert (first["status"], second["status"]) == ("warn", "fail")
    assert f"{use}: asked for" in told(first)
    assert "and gone in 1.37" in told(second)
    assert "endpoints.v1: asked for" in told(second)


def test_an_object_of_a_version_that_is_removed_is_in_the_way(
    cluster: Kubeadm, home: Home
) -> None:
    item = {
        "apiVersion": "scheduling.k8s.io/v1alpha1",
        "kind": "Workload",
        "metadata": {"name": "train", "namespace": "web"},
        "spec": {"podGroups": [{"name": "all", "policy": {"basic": {}}}]},
    }

    with cluster.with_(item):
        _, planted = asked(home)
    _, mended = asked(home)

    (before,), (after,) = checks(planted, "removed-objects"), checks(mended, "removed-objects")
    assert (before["status"], after["status"]) == ("fail", "pass")
    assert "web/train" in told(before)


def test_without_the_right_to_list_secrets_helm_is_unknown_and_can_be_left_out(
    cluster: Kubeadm, home: Home
) -> None:
    path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/opsd-upgrade-readiness"
    rules = cluster.api.get(path)["rules"]
    less = [rule for rule in rules if rule.get("resources") != ["secrets"]]
    cluster.api.patch(path, {"rules": less})
    try:
        _, dark = asked(home)
        home.config.write_text(home.config.read_text() + "helm = false\n")
        _, left_out = asked(home)
    finally:
        cluster.api.patch(path, {"rules": rules})

    (unknown,), (skipped,) = checks(dark, "helm-releases"), checks(left_out, "helm-releases")
    assert unknown["status"] == "unknown"
    assert "cannot list secrets" in told(unknown)
    assert "helm = false" in unknown["fix"]
    assert skipped["status"] == "skipped"


def test_who_may_see_nothing_is_told_that_nothing_is_known_and_never_that_it_is_fine(
    cluster: Kubeadm, home: Home
) -> None:
    plane = cluster.control_plane
    account = {"name": "nobody", "namespace": "opsd"}
    item = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}
    with cluster.with_(item):
        home.write(TABLE.format(kubeconfig=plane.kubeconfig_of("opsd", "nobody")))
        status, run = asked(home)

    fine = {one["id"] for one in run["report"]["checks"] if one["status"] in ("pass", "skipped")}
    assert (status, run["outcome"]) == (3, "completed")
    # What every account may read: the version, whether the API server is well, what it serves.
    assert fine <= {
        "api-health",
        "support-window",
        "removed-objects",
        "selinux-mount",
        "images",
        "flux-ready",
        "flux-inventory",
        "flux-fights",
    }
    assert run["report"]["runbook"][0]["problem"]


def test_an_api_server_that_is_down_fails_the_run(home: Home) -> None:
    home.write(TABLE.format(kubeconfig=home.place / "nowhere.kubeconfig"))

    status, run = asked(home)

    assert status == 1
    assert run["findings"] == []
