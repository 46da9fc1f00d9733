"""A source role that cannot read everything is refused by name, before a byte is dumped (SPEC F1.1)."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from pv_backup.services.errors import ConfigurationError, ExportFailed
from pv_backup.services.postgres import Server
from pv_backup.services.source_check import check_source

pytestmark = pytest.mark.case("TC-NOM-01", "TC-ERR-01")

EVERYTHING = """
CREATE SCHEMA legal;
CREATE TABLE legal.evidence (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, clerk text);
CREATE SEQUENCE legal.case_number;
CREATE MATERIALIZED VIEW legal.summary AS SELECT count(*) FROM legal.evidence;
SELECT lo_from_bytea(4711, 'a scanned page');
"""


@pytest.fixture
def run(source_db):
    with psycopg.connect(source_db.superuser_dsn, autocommit=True) as connection:
        connection.execute(EVERYTHING)
        yield connection.execute


@pytest.fixture
def role(run):
    """A role that may log in, and nothing else; it goes with the test."""
    name = f"reader_{uuid4().hex[:8]}"
    run(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'reader'").format(sql.Identifier(name)))
    yield name
    run(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
    run(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def refusal(source_db, role):
    """What the check says of that role."""

    def refusal():
        params = conninfo_to_dict(source_db.superuser_dsn) | {"user": role, "password": "reader"}
        with pytest.raises(ConfigurationError) as caught:
            check_source(Server(params))
        assert f"role {role} of {role}@127.0.0.1" in caught.value.what
        assert f'ALTER ROLE "{role}" SUPERUSER' in caught.value.remedy
        return caught.value.what.partition("cannot read: ")[2].split(", ")

    return refusal


def test_a_superuser_passes(source_db, run):
    check_source(Server(conninfo_to_dict(source_db.dump_dsn)))


def test_read_all_data_with_bypassrls_still_fails_on_large_objects(run, role, refusal):
    run(f"ALTER ROLE {role} BYPASSRLS; GRANT pg_read_all_data TO {role}")
    assert refusal() == ["large object 4711"]


@pytest.mark.parametrize(
    ("taken_away", "named"),
    [
        ("REVOKE SELECT ON legal.evidence FROM {role}", "table legal.evidence"),
        ("REVOKE SELECT ON legal.summary FROM {role}", "table legal.summary"),
        ("REVOKE SELECT ON legal.case_number FROM {role}", "sequence legal.case_number"),
        ("REVOKE SELECT ON LARGE OBJECT 4711 FROM {role}", "large object 4711"),
        ("REVOKE SELECT ON pg_catalog.pg_authid FROM {role}", "catalogue pg_authid"),
        (
            "ALTER TABLE legal.evidence ENABLE ROW LEVEL SECURITY",
            "rows behind row-level security of table legal.evidence",
        ),
    ],
    ids=["table", "materialised view", "sequence", "large object", "catalogue", "hidden rows"],
)
def test_whatever_one_thing_is_missing_is_named(run, role, refusal, taken_away, named):
    run(
        f"GRANT USAGE ON SCHEMA legal TO {role};"
        f"GRANT SELECT ON ALL TABLES IN SCHEMA legal TO {role};"
        f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA legal TO {role};"
        f"GRANT SELECT ON LARGE OBJECT 4711 TO {role};"
        f"GRANT SELECT ON pg_catalog.pg_authid TO {role}"
    )
    assert refusal() == ["what is added tomorrow"]
    run(taken_away.format(role=role))
    assert refusal() == [named]


def test_a_table_in_a_closed_schema_is_named_although_it_is_granted(run, role, refusal):
    run(f"GRANT SELECT ON ALL TABLES IN SCHEMA legal TO {role}")
    run(f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA legal TO {role}")
    assert {"table legal.evidence", "table legal.summary", "sequence legal.case_number"} <= set(refusal())


def test_ten_are_named_and_the_others_counted(run, role, refusal):
    for number in range(12):
        run(f"CREATE TABLE table_{number:02} ()")
    named = refusal()
    assert len(named) == 11
    assert named[-1] == "and 8 more"


def test_tools_that_are_not_installed_are_named(source_db, tmp_path):
    server = Server(conninfo_to_dict(source_db.dump_dsn), bin_dir=tmp_path)
    with pytest.raises(ConfigurationError, match=f"pg_dump is not on this worker .looked in {tmp_path}") as caught:
        check_source(server)
    assert "postgresql-client-15" in caught.value.remedy


def test_a_source_that_is_down_is_named(source_db, stack):
    server = Server(conninfo_to_dict(source_db.dump_dsn))
    stack.postgres.stop()
    with pytest.raises(ExportFailed, match=f"the source {server.name} does not let us in: .*refused"):
        check_source(server)


def test_a_database_that_does_not_exist_is_named(source_db):
    server = Server(conninfo_to_dict(source_db.dump_dsn))
    missing = replace(server, params={**server.params, "dbname": "no_such_database"})
    with pytest.raises(ExportFailed, match='database "no_such_database" does not exist'):
        check_source(missing)
