from __future__ import annotations

import pytest

from opsd.backup.postgres.roles import choose, statements

SCRIPT = r"""--
-- PostgreSQL database cluster dump
--

\restrict aBc123

SET default_transaction_read_only = off;
CREATE ROLE app;
ALTER ROLE app WITH NOSUPERUSER LOGIN PASSWORD 'SCRAM-SHA-256$4096:a;b''c--d';
CREATE ROLE "odd ""; role
-- x";
ALTER ROLE "odd ""; role
-- x" SET search_path TO 'a;b', 'c';
COMMENT ON ROLE app IS 'it''s; fine';
-- Role memberships
GRANT readers TO app WITH INHERIT TRUE GRANTED BY postgres;
GRANT readers TO postgres;
CREATE TABLESPACE fast OWNER postgres LOCATION '/ssd';
\unrestrict aBc123
"""


def test_a_script_falls_into_its_statements_whatever_the_names_hold() -> None:
    assert list(statements(SCRIPT)) == [
        "SET default_transaction_read_only = off",
        "CREATE ROLE app",
        "ALTER ROLE app WITH NOSUPERUSER LOGIN PASSWORD 'SCRAM-SHA-256$4096:a;b''c--d'",
        'CREATE ROLE "odd ""; role\n-- x"',
        "ALTER ROLE \"odd \"\"; role\n-- x\" SET search_path TO 'a;b', 'c'",
        "COMMENT ON ROLE app IS 'it''s; fine'",
        "GRANT readers TO app WITH INHERIT TRUE GRANTED BY postgres",
        "GRANT readers TO postgres",
        "CREATE TABLESPACE fast OWNER postgres LOCATION '/ssd'",
    ]


def test_roles_that_exist_are_left_as_they_are() -> None:
    chosen = list(choose(statements(SCRIPT), {"postgres", "app", "readers"}))

    assert chosen == [
        'CREATE ROLE "odd ""; role\n-- x"',
        "ALTER ROLE \"odd \"\"; role\n-- x\" SET search_path TO 'a;b', 'c'",
    ]


def test_missing_roles_come_with_password_comment_and_memberships() -> None:
    chosen = list(choose(statements(SCRIPT), {"postgres", "readers", 'odd "; role\n-- x'}))

    assert chosen == [
        "CREATE ROLE app",
        "ALTER ROLE app WITH NOSUPERUSER LOGIN PASSWORD 'SCRAM-SHA-256$4096:a;b''c--d'",
        "COMMENT ON ROLE app IS 'it''s; fine'",
        "GRANT readers TO app WITH INHERIT TRUE",
    ]


@pytest.mark.parametrize(
    "statement", ["DROP ROLE app", "CREATE TABLE t (a int)", "ALTER SYSTEM SET x = 1"]
)
def test_nothing_else_than_roles_is_ever_run(statement: str) -> None:
    assert list(choose(iter([statement]), set())) == []
