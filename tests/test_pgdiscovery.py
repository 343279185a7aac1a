"""Which PostgreSQL servers a cluster has, told from objects as they are in real clusters."""

from __future__ import annotations

import pytest

from opsd.cluster.postgres_images import image_name, is_server_image
from opsd.cluster.postgres_logins import Key, Login, Plain
from opsd.cluster.postgres_services import Address
from tests.pgobjects import (
    Json,
    bitnami,
    bitnami_services,
    cnpg,
    container,
    crunchy,
    decoded,
    found,
    headless,
    only,
    only_problem,
    secret_variable,
    service,
    spilo,
    workload,
    zalando,
)


def key(name: str, one: str) -> Key:
    return Key(kind="secret", name=name, key=one)


@pytest.mark.parametrize(
    "image",
    [
        "postgres",
        "postgres:17.5-alpine",
        "docker.io/library/postgres@sha256:" + "a" * 64,
        "registry.lan:5000/mirror/postgres",
        "bitnami/postgresql:17",
        "docker.io/bitnami/postgresql-repmgr:17",
        "timescale/timescaledb:2.17-pg17",
        "timescale/timescaledb-ha:pg17",
        "postgis/postgis:17-3.5",
        "pgvector/pgvector:pg17",
        "ghcr.io/immich-app/postgres:14-vectorchord0.4.3",
        "tensorchord/pgvecto-rs:pg16-v0.2.0",
        "ghcr.io/cloudnative-pg/postgresql:17",
        "ghcr.io/zalando/spilo-17:4.0-p2",
        "registry.developers.crunchydata.com/crunchydata/crunchy-postgres-gis:ubi9-17",
        "supabase/postgres:17",
        "quay.io/sclorg/postgresql-15-c9s",
    ],
)
def test_images_of_servers_are_known_whatever_their_registry_and_tag(image: str) -> None:
    assert is_server_image(image)


@pytest.mark.parametrize(
    "image",
    [
        "quay.io/prometheuscommunity/postgres-exporter:v0.17",
        "bitnami/postgres-exporter",
        "prodrigestivill/postgres-backup-local:17",
        "bitnami/pgpool:4",
        "bitnami/pgbouncer",
        "ghcr.io/cloudnative-pg/pgbouncer:1.24",
        "dpage/pgadmin4",
        "registry.developers.crunchydata.com/crunchydata/crunchy-pgbackrest",
        "ghcr.io/cloudnative-pg/cloudnative-pg:1.27",
        "ghcr.io/zalando/postgres-operator:v1.14",
        "wait-for-postgres",
        "postgrest/postgrest",
        "mysql:8",
        "",
    ],
)
def test_images_that_only_speak_to_a_server_are_none(image: str) -> None:
    assert not is_server_image(image)


def test_the_name_of_an_image_has_no_registry_tag_or_digest() -> None:
    assert image_name("registry.lan:5000/a/Postgres:17@sha256:0") == "postgres"


def test_a_plain_stateful_set_is_a_server() -> None:
    server = only(workload(), service())

    assert server.name == "db.pg"
    assert server.workload == "statefulset db/pg"
    assert server.address == Address(host="pg.db.svc", port=5432)
    assert server.logins == (Login(user=(Plain("postgres"),), password=(key("pg", "password"),)),)
    assert server.databases == ("*",)
    assert server.is_running


def test_a_deployment_is_a_server_too() -> None:
    server = only(workload(kind="Deployment"), service())

    assert server.workload == "deployment db/pg"


@pytest.mark.parametrize("files", [False, True])
def test_bitnamis_chart_gives_the_superuser_and_then_the_user(files: bool) -> None:  # noqa: FBT001 - a table
    server = only(bitnami(files=files), *bitnami_services())

    assert server.name == "monitoring.grafana-db"
    assert server.address == Address(host="grafana-db.monitoring.svc", port=5432)
    assert server.logins == (
        Login(user=(Plain("postgres"),), password=(key("grafana-db", "postgres-password"),)),
        Login(
            user=(Plain("grafana"), Plain("postgres")), password=(key("grafana-db", "password"),)
        ),
    )


def test_a_read_replica_is_no_server_of_its_own() -> None:
    replica = bitnami(files=False, component="read", name="grafana-db-read")

    server = only(bitnami(files=False), replica, *bitnami_services())

    assert server.workload == "statefulset monitoring/grafana-db"


def test_a_replica_told_by_its_variables_is_no_server() -> None:
    env = [{"name": "POSTGRES_REPLICATION_MODE", "value": "slave"}]

    assert found(workload(container(env=env)), service()).servers == ()


def test_a_cluster_of_cloudnative_pg_is_one_server() -> None:
    server = only(cnpg())

    assert server.name == "db.main"
    assert server.workload == "cluster.postgresql.cnpg.io db/main"
    assert server.address == Address(host="main-rw.db.svc", port=5432)
    assert server.logins == (
        Login(
            user=(key("main-app", "username"), Plain("postgres")),
            password=(key("main-app", "password"),),
        ),
    )


def test_cloudnative_pgs_superuser_comes_before_its_application() -> None:
    own = cnpg(
        spec={"enableSuperuserAccess": True, "bootstrap": {"initdb": {"secret": {"name": "mine"}}}}
    )

    named = cnpg(spec={"superuserSecret": {"name": "root"}})

    assert [one.password for one in only(own).logins] == [
        (key("main-superuser", "password"),),
        (key("mine", "password"),),
    ]
    assert only(named).logins[0].password == (key("root", "password"),)


def test_a_cluster_of_zalando_and_its_stateful_set_are_one_server() -> None:
    login = "postgres.acid-minimal.credentials.postgresql.acid.zalan.do"

    server = only(zalando(), spilo(), service("acid-minimal", selector={}))

    assert server.workload == "postgresql.acid.zalan.do db/acid-minimal"
    assert server.address == Address(host="acid-minimal.db.svc", port=5432)
    assert server.logins[0].password == (key(login, "password"),)


def test_without_its_resource_spilo_has_the_same_name_and_secret() -> None:
    login = "postgres.acid-minimal.credentials.postgresql.acid.zalan.do"
    labels = {"application": "spilo", "cluster-name": "acid-minimal"}
    to_primary = service("acid-minimal", selector={**labels, "spilo-role": "master"})
    to_replica = service("acid-minimal-repl", selector={**labels, "spilo-role": "replica"})

    server = only(spilo(), to_replica, to_primary)

    assert server.name == only(zalando()).name
    assert server.address == Address(host="acid-minimal.db.svc", port=5432)
    assert server.logins[0].password == (key(login, "password"),)


def test_the_instances_of_a_crunchy_cluster_are_one_server() -> None:
    server = only(crunchy("a-8xq2"), crunchy("b-k2m4"))

    assert server.name == "db.hippo"
    assert server.address == Address(host="hippo-primary.db.svc", port=5432)
    assert [one.password for one in server.logins] == [
        (key("hippo-pguser-postgres", "password"),),
        (key("hippo-pguser-hippo", "password"),),
    ]


def test_all_keys_of_a_secret_or_configmap_as_variables_are_places_to_look() -> None:
    sources = [
        {"configMapRef": {"name": "pg-config"}},
        {"prefix": "POSTGRES_", "secretRef": {"name": "pg-secret"}},
    ]

    server = only(workload(container(env=[], envFrom=sources)), service())

    login = server.logins[-1]
    assert Key(kind="configmap", name="pg-config", key="POSTGRES_USER") in login.user
    assert login.password[:2] == (
        key("pg-secret", "PASSWORD"),
        Key(kind="configmap", name="pg-config", key="POSTGRES_PASSWORD"),
    )
    assert Key(kind="secret", name="pg-secret", key="POSTGRES_PASSWORD") not in login.password


def test_a_password_that_stands_in_the_workload_is_used_and_never_printed() -> None:
    env = [{"name": "POSTGRES_PASSWORD", "value": "hunter22"}]

    server = only(workload(container(env=env)), service())

    assert server.logins[0].password == (Plain("hunter22"),)
    assert "hunter22" not in repr(server)


def test_a_variable_that_refers_to_one_before_it_is_followed() -> None:
    env = [
        secret_variable("DB_PASS", "pg", "pw"),
        {"name": "POSTGRES_PASSWORD", "value": "$(DB_PASS)"},
    ]
    circle = [
        {"name": "POSTGRES_PASSWORD", "value": "$(DB_PASS)"},
        {"name": "DB_PASS", "value": "$(POSTGRES_PASSWORD)"},
    ]

    followed = only(workload(container(env=env)), service())
    lost = only(workload(container(env=circle)), service())

    assert followed.logins[0].password == (key("pg", "pw"),)
    assert lost.logins == ()


def test_a_file_that_is_mounted_under_another_name_leads_to_its_key() -> None:
    env = [{"name": "POSTGRES_PASSWORD_FILE", "value": "/run/secrets/pg/pw"}]
    mounts = [{"name": "secrets", "mountPath": "/run/secrets"}]
    source = {"secret": {"name": "pg", "items": [{"key": "password", "path": "pg/pw"}]}}
    volumes = ({"name": "secrets", "projected": {"sources": [source]}},)

    server = only(workload(container(env=env, volumeMounts=mounts), volumes=volumes), service())

    assert server.logins[0].password == (key("pg", "password"),)


def test_a_file_outside_of_every_mount_leads_nowhere() -> None:
    env = [{"name": "POSTGRES_PASSWORD_FILE", "value": "/run/secrets-2/pw"}]
    mounts = [{"name": "secrets", "mountPath": "/run/secrets"}]
    volumes = ({"name": "secrets", "secret": {"secretName": "pg"}},)

    server = only(workload(container(env=env, volumeMounts=mounts), volumes=volumes), service())

    assert server.logins == ()


def test_a_server_that_trusts_everybody_needs_no_password() -> None:
    env = [{"name": "POSTGRES_HOST_AUTH_METHOD", "value": "trust"}]

    server = only(workload(container(env=env)), service())

    assert server.logins == (Login(user=(Plain("postgres"),), password=()),)


@pytest.mark.parametrize(
    "other",
    [
        container(command=["sleep", "infinity"]),
        container(command=["sh", "-c", "until psql; do sleep 1; done"]),
        container(args=["pg_dump", "-h", "pg"]),
        container("bitnami/pgbouncer", env=[{"name": "PGDATA", "value": "/x"}]),
        container("example/app:1", env=[{"name": "POSTGRES_PASSWORD", "value": "x"}]),
    ],
    ids=["sleeps", "waits", "dumps", "pools", "speaks"],
)
def test_what_has_the_image_port_or_variables_and_is_no_server_is_left_out(other: Json) -> None:
    discovery = found(workload(other), service())

    assert discovery.servers == ()
    assert discovery.problems == ()


@pytest.mark.parametrize(
    "one",
    [
        container(args=["-c", "max_connections=200"]),
        container(args=["postgres", "-c", "shared_buffers=1GB"]),
        container(command=["docker-entrypoint.sh", "postgres"]),
        container(command=["bash", "-c", "exec docker-entrypoint.sh postgres"]),
        container("example/my-database:1", env=[{"name": "PGDATA", "value": "/data"}]),
    ],
    ids=["options", "named", "entry point", "wrapped", "unknown image"],
)
def test_a_server_is_known_however_it_is_started(one: Json) -> None:
    assert only(workload(one), service()).name == "db.pg"


def test_an_init_container_that_waits_for_a_server_is_none() -> None:
    app = workload({"name": "app", "image": "example/app:1"}, kind="Deployment")
    app["spec"]["template"]["spec"]["initContainers"] = [container()]

    assert found(app, service()).servers == ()


def test_the_owner_may_decline_and_insist() -> None:
    unknown = container("example/anything:1", env=[], ports=[{"containerPort": 6000}])

    declined = found(workload(annotations={"opsd.dev/backup": "false"}), service())
    insisted = only(
        workload(unknown, annotations={"opsd.dev/backup": "true"}),
        service(ports=[{"port": 5432, "targetPort": 6000}]),
    )

    assert declined.servers == ()
    assert declined.declined == ("db.pg",)
    assert insisted.address == Address(host="pg.db.svc", port=5432)


def test_hints_decide_over_what_was_found() -> None:
    annotations = {
        "opsd.dev/service": "pg-direct",
        "opsd.dev/port": "6432",
        "opsd.dev/user": "opsd_backup",
        "opsd.dev/secret": "opsd-login",
        "opsd.dev/password-key": "pw",
        "opsd.dev/databases": "app, blog*",
        "opsd.dev/exclude": "*_test",
    }

    server = only(workload(annotations=annotations), service(), service("pg-direct"))

    assert server.address == Address(host="pg-direct.db.svc", port=6432)
    assert server.logins == (
        Login(user=(Plain("opsd_backup"),), password=(key("opsd-login", "pw"),)),
    )
    assert server.databases == ("app", "blog*")
    assert server.exclude == ("*_test",)


def test_hints_of_the_pods_template_count_where_the_workload_has_none() -> None:
    one = workload(annotations={"opsd.dev/databases": "app"})
    own = {"opsd.dev/databases": "other", "opsd.dev/exclude": "x"}
    one["spec"]["template"]["metadata"]["annotations"] = own

    server = only(one, service())

    assert server.databases == ("app",)
    assert server.exclude == ("x",)


@pytest.mark.parametrize(
    ("annotation", "told"),
    [
        ({"opsd.dev/backup": "no"}, 'opsd.dev/backup: expected "true" or "false", got "no"'),
        ({"opsd.dev/port": "65536"}, "opsd.dev/port: expected a number up to 65535"),
        ({"opsd.dev/port": "0"}, "opsd.dev/port: expected a number up to 65535"),
        ({"opsd.dev/service": "evil.example/x"}, "opsd.dev/service: expected the name of an"),
        ({"opsd.dev/pasword-key": "pw"}, "did you mean opsd.dev/password-key?"),
        ({"opsd.dev/service": "gone"}, "there is no Service gone in its namespace"),
    ],
)
def test_a_hint_that_cannot_be_followed_is_told(annotation: Json, told: str) -> None:
    problem = only_problem(workload(annotations=annotation), service())

    assert problem.name == "db.pg"
    assert told in problem.reason


def test_the_highest_port_is_one() -> None:
    server = only(workload(annotations={"opsd.dev/port": "65535"}), service())

    assert server.address.port == 65535


def test_annotations_for_other_things_are_nobodys_business() -> None:
    other = workload(
        {"name": "app", "image": "example/app:1"}, annotations={"opsd.dev/port": "none"}
    )

    assert only(workload(annotations={"opsd.dev/fence": "power"}), service()).name == "db.pg"
    assert found(other).problems == ()


def test_a_server_without_a_service_is_told() -> None:
    problem = only_problem(workload(kind="Deployment"), service(selector={"app": "other"}))

    assert problem.reason == "no Service leads to it"
    assert "opsd.dev/service" in problem.remedy


def test_a_service_that_leads_to_another_port_of_the_pod_is_not_taken() -> None:
    metrics = service("pg-metrics", ports=[{"port": 9187, "targetPort": 9187}])
    named = service("pg-sql", ports=[{"port": 15432, "targetPort": "sql"}])
    one = container(ports=[{"name": "sql", "containerPort": 5432}])

    server = only(workload(one), metrics, named)

    assert server.address == Address(host="pg-sql.db.svc", port=15432)


def test_of_one_replica_a_headless_service_will_do() -> None:
    server = only(workload(), headless())

    assert server.address == Address(host="pg-hl.db.svc", port=5432)


def test_of_several_replicas_the_first_pod_is_taken_and_no_balancer() -> None:
    server = only(workload(replicas=2), service(), headless())

    assert server.address == Address(host="pg-0.pg-hl.db.svc", port=5432)


def test_of_several_replicas_a_service_that_follows_the_primary_is_best() -> None:
    primary = service("pg-primary", selector={"app": "pg", "role": "master"})
    replica = service("pg-replica", selector={"app": "pg", "role": "replica"})

    server = only(workload(replicas=2), replica, service(), headless(), primary)

    assert server.address == Address(host="pg-primary.db.svc", port=5432)


def test_an_external_name_leads_where_it_says() -> None:
    outside = service("out", selector={}, type="ExternalName", externalName="pg.example.org")

    server = only(workload(annotations={"opsd.dev/service": "out"}), outside)

    assert server.address == Address(host="pg.example.org", port=5432)


@pytest.mark.parametrize(
    "stopped",
    [
        workload(replicas=0),
        zalando(instances=0),
        cnpg(annotations={"cnpg.io/hibernation": "on"}),
    ],
    ids=["scaled to nothing", "no instances", "hibernated"],
)
def test_what_was_stopped_on_purpose_is_known_and_not_running(stopped: Json) -> None:
    assert not only(stopped, service()).is_running


@pytest.mark.parametrize(
    ("host", "port", "same"),
    [
        ("pg.db", 5432, True),
        ("pg.db.svc", 5432, True),
        ("PG.db.svc.cluster.local.", 5432, True),
        ("10.96.7.7", 5432, True),
        ("pg-0.pg-hl.db.svc", 5432, True),
        ("pg.db.svc", 5433, False),
        ("pg.other.svc", 5432, False),
        ("pg", 5432, False),
        ("pg.db.example.org", 5432, False),
    ],
)
def test_a_server_that_is_written_down_is_recognised_by_its_addresses(
    host: str,
    port: int,
    same: bool,  # noqa: FBT001 - a table
) -> None:
    assert only(workload(), service(), headless()).is_at(host, port) is same


def test_names_never_meet_across_namespaces() -> None:
    servers = found(
        workload(namespace="a-b", name="c", labels={"app": "pg"}),
        workload(namespace="a", name="b-c", labels={"app": "pg"}),
        service(namespace="a-b"),
        service(namespace="a"),
    ).servers

    assert [one.name for one in servers] == ["a-b.c", "a.b-c"]


def test_of_two_servers_with_one_name_one_is_backed_up_and_the_other_told() -> None:
    discovery = found(
        workload(labels={"app": "new"}),
        workload(kind="Deployment", labels={"app": "old"}),
        service("new", selector={"app": "new"}),
        service("old", selector={"app": "old"}),
    )

    assert [one.workload for one in discovery.servers] == ["statefulset db/pg"]
    assert [one.name for one in discovery.problems] == ["db.pg.deployment"]
    assert "is taken by statefulset db/pg" in discovery.problems[0].reason


def test_workloads_behind_one_service_are_one_server() -> None:
    both = {"app": "pg"}

    server = only(workload(name="a", labels=both), workload(name="b", labels=both), service())

    assert server.name == "db.a"


def test_what_was_found_does_not_depend_on_the_order_of_the_objects() -> None:
    items = [
        workload(),
        service(),
        headless(),
        *bitnami_services(),
        bitnami(files=True),
        spilo(),
        zalando(),
        cnpg(),
        crunchy("b"),
        crunchy("a"),
    ]

    forwards, backwards = found(*items), found(*reversed(items))

    assert forwards == backwards
    assert len(forwards.servers) == 5
    assert len(decoded(*items).stateful_sets) == 5
