"""Databases of a real API server are found, logged in to and dumped, with nothing written down.

There is no DNS in the rig, so Services are of type ExternalName and lead to real PostgreSQL
servers on loopback.
"""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import postgres_backup
from opsd.cli import main
from opsd.clients.kube.access import find_cluster
from opsd.clients.kube.client import Kube
from opsd.clients.kube.transport import Transport
from opsd.clock import Deadline, SystemClock
from opsd.model import Outcome, Severity
from opsd.testing import MemoryRepository
from tests.conftest import PgOf
from tests.rig import controlplane, dumps
from tests.rig.controlplane import ControlPlane
from tests.rig.kubeapi import ApiError, Object, eventually, path_of
from tests.rig.postgres import PASSWORD, PgServer
from tests.rig.server import HOST, free_port
from tests.rig.workloads import service_account, stateful_set

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]

RBAC = Path(__file__).parents[2] / "deploy/rbac/discovery.yaml"
LISTS: list[dict[str, Any]] = next(yaml.safe_load_all(RBAC.read_text()))["rules"]
APPS, SERVICES = LISTS[:1], LISTS[1:2]
EVERY_SECRET = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}]


@dataclass(frozen=True, kw_only=True)
class Site:
    """A namespace in which opsd is a ServiceAccount of its own."""

    control_plane: ControlPlane
    namespace: str

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{self.namespace}:opsd"

    def create(self, *items: Object) -> None:
        self.control_plane.api.create(*items)

    def grant(self, rules: list[dict[str, Any]]) -> None:
        """Give opsd rights in the namespace, and wait until the API server knows."""
        group = "rbac.authorization.k8s.io"
        meta = {"namespace": self.namespace, "name": "opsd"}
        role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": meta, "rules": rules}
        binding = {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "opsd"},
            "subjects": [{"kind": "ServiceAccount", "namespace": self.namespace, "name": "opsd"}],
        }
        self.create(role, binding)
        eventually(lambda: self.may(rules[0]))

    def may(self, rule: dict[str, Any]) -> bool:
        attributes = {
            "namespace": self.namespace,
            "verb": rule["verbs"][0],
            "group": rule["apiGroups"][0],
            "resource": rule["resources"][0],
            "name": rule.get("resourceNames", [""])[0],
        }
        review = self.control_plane.api.post(
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            {"spec": {"user": self.user, "resourceAttributes": attributes}},
        )
        return bool(review["status"]["allowed"])

    def kube(self) -> Kube:
        kubeconfig = self.control_plane.kubeconfig_of(self.namespace, "opsd")
        transport = Transport(lambda: find_cluster(kubeconfig=kubeconfig))
        return Kube(transport, deadline=Deadline.after(90, SystemClock()))

    def run(self, pg: PgServer, scratch: Path, **changed: Any) -> dumps.JobRun:
        """Run the job as that ServiceAccount."""
        kube = changed.pop("kube", None) or self.kube()
        repository = changed.pop("repository", None) or MemoryRepository()
        known = {
            "repositories": ["memory"],
            "discover": True,
            "namespaces": [self.namespace],
            "client_dirs": [str(pg.bin_dir)],
        }
        settings = postgres_backup.Settings.model_validate({**known, **changed})
        return dumps.run_job(settings, [repository], scratch, kube=kube)

    def secret(self, name: str, **values: str) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"namespace": self.namespace, "name": name},
            "data": {k: base64.b64encode(v.encode()).decode() for k, v in values.items()},
        }

    def service(self, name: str, pg: PgServer) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": self.namespace, "name": name},
            "spec": {
                "type": "ExternalName",
                "externalName": "localhost",
                "ports": [{"name": "postgres", "port": pg.port}],
            },
        }

    def server(self, name: str = "pg", *, service: str = "out", secret: str = "pg") -> Object:
        """A StatefulSet of the official image, as people write it."""
        reference = {"secretKeyRef": {"name": secret, "key": "password"}}
        one = {
            "name": "postgres",
            "image": "postgres:18",
            "ports": [{"containerPort": 5432}],
            "env": [{"name": "POSTGRES_PASSWORD", "valueFrom": reference}],
        }
        item = stateful_set(self.namespace, name, {"containers": [one]}, replicas=1)
        item["metadata"]["annotations"] = {"opsd.dev/service": service}
        return item


@pytest.fixture
def site(control_plane: ControlPlane, namespace: str) -> Site:
    control_plane.api.create(service_account(namespace, "opsd"))
    return Site(control_plane=control_plane, namespace=namespace)


@pytest.fixture
def operators(control_plane: ControlPlane) -> Iterator[None]:
    """The kinds of two operators, without the operators."""
    kinds = [
        custom("postgresql.cnpg.io", "clusters", "Cluster"),
        custom("acid.zalan.do", "postgresqls", "postgresql"),
    ]
    control_plane.api.create(*kinds)
    eventually(lambda: all(is_served(control_plane, kind) for kind in kinds))
    yield
    for kind in kinds:
        control_plane.api.delete(path_of(kind))
    eventually(lambda: not any(control_plane.api.find(path_of(kind)) for kind in kinds))


def is_served(control_plane: ControlPlane, kind: Object) -> bool:
    """Whether objects of the kind can be listed; at first its storage is being made."""
    spec = kind["spec"]
    try:
        control_plane.api.get(f"/apis/{spec['group']}/v1/{spec['names']['plural']}")
    except ApiError:
        return False
    return True


def custom(group: str, plural: str, kind: str) -> Object:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [version],
        },
    }


def cnpg_cluster(namespace: str) -> Object:
    return {
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Cluster",
        "metadata": {"namespace": namespace, "name": "main"},
        "spec": {"instances": 3, "enableSuperuserAccess": True},
    }


@pytest.mark.usefixtures("operators")
def test_databases_are_found_and_dumped_and_no_secret_but_theirs_is_read(
    site: Site, pg_of: PgOf, empty_pg: PgServer, tmp_path: Path
) -> None:
    older = pg_of(16)
    older.reset()
    empty_pg.execute(dumps.SAMPLE, empty_pg.create_database("app"))
    older.execute(dumps.SAMPLE, older.create_database("blog"))
    site.create(
        site.secret("pg", password=PASSWORD),
        site.secret("main-superuser", username="postgres", password=PASSWORD),
        site.secret("main-app", username="app", password="of nobody's concern"),
        site.secret("bystander", password="none of your business"),
        site.service("out", empty_pg),
        site.service("main-rw", older),
        site.server(),
        cnpg_cluster(site.namespace),
    )
    site.grant([*LISTS, *EVERY_SECRET])
    repository = MemoryRepository()
    since = site.control_plane.audit.mark()

    job = site.run(empty_pg, tmp_path, repository=repository)

    assert job.run.outcome is Outcome.COMPLETED, job.run
    first, second = f"{site.namespace}.pg", f"{site.namespace}.main"
    assert {one.subject for one in job.run.artifacts} == {
        f"globals/{first}",
        f"database/{first}/app",
        f"database/{first}/postgres",
        f"globals/{second}",
        f"database/{second}/blog",
        f"database/{second}/postgres",
    }
    assert job.artifact(f"database/{first}/app").facts["rows"] == sum(dumps.ROWS.values())
    assert PASSWORD not in repr(job.run)
    calls = site.control_plane.audit.calls(user=site.user, since=since)
    where = site.namespace
    assert sorted(str(call) for call in calls) == [
        f"get secrets {where}/main-superuser: 200",
        f"get secrets {where}/pg: 200",
        f"list clusters {where}: 200",
        f"list deployments {where}: 200",
        f"list postgresqls {where}: 200",
        f"list services {where}: 200",
        f"list statefulsets {where}: 200",
    ]


def test_a_secret_that_may_not_be_read_is_told_with_the_command_that_helps(
    site: Site, empty_pg: PgServer, tmp_path: Path
) -> None:
    kubectl = controlplane.bin_dir() / "kubectl"
    if not kubectl.exists():
        pytest.skip("kubectl is not among the programs of KUBEBUILDER_ASSETS")
    site.create(site.secret("pg", password=PASSWORD), site.service("out", empty_pg), site.server())
    site.grant(LISTS)

    refused = site.run(empty_pg, tmp_path / "1")
    finding = refused.finding("postgres.no_credentials")
    admin = {"KUBECONFIG": str(site.control_plane.kubeconfig()), "HOME": str(tmp_path)}
    path = f"{kubectl.parent}:{os.environ['PATH']}"
    subprocess.run(  # noqa: S602 - as the operator pastes it
        finding.remedy, shell=True, check=True, capture_output=True, env={**admin, "PATH": path}
    )
    one = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["pg"]}
    eventually(lambda: site.may(one))
    helped = site.run(empty_pg, tmp_path / "2")

    assert refused.run.outcome is Outcome.FAILED
    assert not refused.run.may_pass
    assert finding.subject == f"server/{site.namespace}.pg"
    assert "cluster/databases" in refused.run.seen
    assert f"get secret {site.namespace}/pg: 403 Forbidden" in str(finding.facts["error"])
    assert helped.run.outcome is Outcome.COMPLETED
    assert finding.subject in helped.run.seen


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "secret {}/pg is not there"),
        ({"other": "x"}, "secret {}/pg has no key password"),
        ({"password": ""}, "secret {}/pg has no key password"),
    ],
    ids=["no secret", "no key", "empty"],
)
def test_a_password_that_is_not_there_is_told_and_stops_no_other_server(
    site: Site,
    pg_of: PgOf,
    empty_pg: PgServer,
    tmp_path: Path,
    *,
    values: dict[str, str],
    told: str,
) -> None:
    site.create(
        site.service("out", empty_pg),
        site.server(),
        site.server("good", service="out2", secret="good"),
        site.secret("good", password=PASSWORD),
        site.service("out2", pg_of(16)),
    )
    if values:
        site.create(site.secret("pg", **values))
    site.grant([*LISTS, *EVERY_SECRET])

    job = site.run(empty_pg, tmp_path)

    assert told.format(site.namespace) in job.finding("postgres.no_credentials").summary
    assert job.run.outcome is Outcome.FAILED
    assert f"globals/{site.namespace}.good" in {one.subject for one in job.run.artifacts}


def test_rights_that_are_missing_are_told_and_operators_that_are_not_there_are_not(
    site: Site, empty_pg: PgServer, tmp_path: Path
) -> None:
    site.create(site.secret("pg", password=PASSWORD), site.service("out", empty_pg), site.server())
    site.grant([*SERVICES, *EVERY_SECRET])
    blind = site.run(empty_pg, tmp_path / "1")
    site.control_plane.api.delete(
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{site.namespace}/rolebindings/opsd"
    )
    site.control_plane.api.delete(
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{site.namespace}/roles/opsd"
    )

    site.grant([*APPS, *SERVICES, *EVERY_SECRET])
    seeing = site.run(empty_pg, tmp_path / "2")

    finding = blind.finding("cluster.unreadable")
    assert blind.run.outcome is Outcome.FAILED
    assert not blind.run.may_pass
    assert "cannot list statefulsets" in str(finding.facts["error"])
    assert "cannot list deployments" in str(finding.facts["error"])
    assert "clusters" not in str(finding.facts["error"])
    assert "discovery.md#rights" in finding.remedy
    assert seeing.run.outcome is Outcome.COMPLETED


def test_an_api_that_does_not_answer_is_unknown_and_stops_no_written_down_server(
    site: Site, empty_pg: PgServer, tmp_path: Path
) -> None:
    kubeconfig = site.control_plane.kubeconfig_of(site.namespace, "opsd")
    away = tmp_path / "away"
    away.write_text(
        kubeconfig.read_text().replace(site.control_plane.url, f"https://{HOST}:{free_port()}")
    )
    transport = Transport(lambda: find_cluster(kubeconfig=away))
    kube = Kube(transport, deadline=Deadline.after(90, SystemClock()))
    [table] = dumps.settings_of(empty_pg, tmp_path).servers

    job = site.run(empty_pg, tmp_path, kube=kube, servers=[table])

    assert job.run.outcome is Outcome.FAILED
    assert job.run.may_pass
    assert job.finding("cluster.unreadable").severity is Severity.CRITICAL
    assert "cluster/databases" not in job.run.seen
    assert "database/main/postgres" in {one.subject for one in job.run.artifacts}


def test_a_server_that_is_written_down_is_not_dumped_twice(
    site: Site, empty_pg: PgServer, tmp_path: Path
) -> None:
    site.create(site.secret("pg", password=PASSWORD), site.service("out", empty_pg), site.server())
    site.grant([*LISTS, *EVERY_SECRET])
    [table] = dumps.settings_of(empty_pg, tmp_path).servers
    since = site.control_plane.audit.mark()

    job = site.run(empty_pg, tmp_path, servers=[table])

    assert job.run.outcome is Outcome.COMPLETED
    assert {one.subject for one in job.run.artifacts} == {
        "database/main/postgres",
        "globals/main",
    }
    calls = site.control_plane.audit.calls(user=site.user, since=since)
    assert not [call for call in calls if call.resource == "secrets"]


def test_a_server_without_a_young_dump_is_named_until_it_has_one(
    site: Site, empty_pg: PgServer, tmp_path: Path
) -> None:
    site.create(site.service("out", empty_pg), site.server())
    site.grant([*LISTS, *EVERY_SECRET])

    too_old = site.run(empty_pg, tmp_path / "1", wanted_age="0s")
    young = site.run(empty_pg, tmp_path / "2", wanted_age="1h")
    site.create(site.secret("pg", password=PASSWORD))
    covered = site.run(empty_pg, tmp_path / "3", wanted_age="0s")

    subject = f"server/{site.namespace}.pg"
    assert too_old.finding("backup.not_covered").subject == subject
    assert "backup.not_covered" not in {one.check for one in young.run.findings}
    assert covered.run.outcome is Outcome.COMPLETED
    assert covered.run.findings == ()
    assert subject in covered.run.seen


def test_a_dump_goes_back_to_the_server_that_was_found(
    site: Site, empty_pg: PgServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty_pg.execute(dumps.SAMPLE, empty_pg.create_database("app"))
    site.create(site.secret("pg", password=PASSWORD), site.service("out", empty_pg), site.server())
    site.grant([*LISTS, *EVERY_SECRET])
    (tmp_path / "backups").mkdir()
    config = tmp_path / "config.toml"
    config.write_text(
        f"""
        [opsd]
        state_dir = "{tmp_path}/state"
        [kubernetes]
        kubeconfig = "{site.control_plane.kubeconfig_of(site.namespace, "opsd")}"
        [repositories.usb]
        type = "directory"
        path = "{tmp_path}/backups"
        [jobs.postgres-backup]
        repositories = ["usb"]
        discover = true
        namespaces = ["{site.namespace}"]
        client_dirs = ["{empty_pg.bin_dir}"]
        """
    )
    monkeypatch.setenv("OPSD_CONFIG", str(config))
    subject = f"database/{site.namespace}.pg/app"

    checked = main(["check"])
    dumped = main(["run-job", "postgres-backup"])
    restored = main(["backups", "restore", subject, "--as", "again"])
    unknown = main(["backups", "restore", subject, "--as", "third", "--server", "no.such"])

    assert (dumped, restored, unknown) == (0, 0, 2)
    assert checked == 0
    with empty_pg.connect("again") as connection:
        assert connection.execute("SELECT count(*) FROM people").fetchone() == (1000,)
