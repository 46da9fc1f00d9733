"""The default checks of a restored database: they bear every kind of thing, and find each kind of damage."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dev.servers.postgres import BIN_DIR
from pv_backup.services.export_sources import DumpSource
from pv_backup.services.restoration.contract import run_contract
from pv_backup.services.row_counts import count_rows
from tests.integration.contract_world import DEFAULTS, KINDS, Restored, failed
from tests.support.clusters import query_all

pytestmark = [pytest.mark.case("TC-NOM-04"), pytest.mark.case("TC-ERR-07")]


def broken(restored: Restored, *statements: str) -> dict[str, str]:
    """What the default checks say of a database in which that was done."""
    return failed(run_contract(restored.copy(*statements), DEFAULTS))


def test_no_default_check_objects_to_any_kind_of_thing(restored: Restored):
    checks = list(run_contract(restored.server(KINDS), DEFAULTS))

    assert failed(checks) == {}
    assert [check.name for check in checks] == [
        f"contract/{path.stem} ({KINDS})" for path in sorted(DEFAULTS.glob("*.sql"))
    ]
    assert len(checks) == 8


def test_it_holds_of_what_pg_restore_makes_of_a_dump_and_no_row_is_missing(restored: Restored, tmp_path: Path):
    source = DumpSource(server=restored.server(KINDS))
    with source, (tmp_path / "dump").open("wb") as file:
        file.writelines(source.chunks())
        counted = source.facts()["row_counts"]
    target = restored.empty("from a dump", encoding="UTF8")
    command = [BIN_DIR / "pg_restore", "--exit-on-error", f"--dbname={restored.dsn('from a dump')}", tmp_path / "dump"]
    subprocess.run(command, check=True, capture_output=True)

    assert failed(run_contract(target, DEFAULTS)) == {}
    assert count_rows(target).rows == counted == count_rows(restored.server(KINDS)).rows
    assert counted["public.scratch"] == 2
    assert counted.items() - count_rows(target).logged.items() == {("public.scratch", 2)}


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_it_holds_of_a_database_of_another_encoding(restored: Restored, encoding: str):
    server = restored.empty(f"in {encoding}", encoding=encoding)
    query_all(restored.dsn(server.database), """CREATE TABLE "Straße" ("é" serial PRIMARY KEY CHECK ("é" > 0))""")
    query_all(restored.dsn(server.database), """INSERT INTO "Straße" DEFAULT VALUES""")

    assert failed(run_contract(server, DEFAULTS)) == {}
    query_all(restored.dsn(server.database), """SELECT setval('"Straße_é_seq"', 1, false)""")
    assert 'table public."Straße", column é' in failed(run_contract(server, DEFAULTS))["contract/sequences_ahead"]


def test_each_constraint_that_does_not_hold_is_named_with_its_rows(restored: Restored):
    found = broken(
        restored,
        # A CHECK, one of a domain below a domain, NOT NULL of a column and of a domain, the bounds of partitions.
        "UPDATE pg_constraint SET convalidated = true WHERE conname IN ('one_day', 'later')",
        "INSERT INTO log_new VALUES ('2026-05-05', NULL, 1)",
        "UPDATE pg_attribute SET attnotnull = true WHERE attrelid = 'log_new'::regclass AND attname = 'person'",
        "UPDATE pg_type SET typnotnull = true WHERE typname = 'tags'",
        "UPDATE pg_class c SET relpartbound = o.relpartbound FROM pg_class o"
        " WHERE c.relname || o.relname IN ('hashed_0hashed_1', 'hashed_1hashed_0')",
    )

    assert found.keys() == {"contract/constraints_valid"}
    lines = found["contract/constraints_valid"].splitlines()
    odd = 'table "Odd Schema"."Odd ""Table"""'
    assert {line for line in lines[:-1] if "hashed" not in line} == {
        "table public.parent, constraint one_day, rows 1",
        "table public.log_new, constraint person NOT NULL, rows 1",
        f'{odd}, constraint "select", domain positive: later, rows 1',
        f'{odd}, constraint "Tags", domain tags NOT NULL, rows 1',
        "table public.refers, constraint labels, domain tags NOT NULL, rows 1",
    }
    hashed = [line for line in lines if "hashed" in line]
    assert [line.rpartition(",")[0] for line in hashed] == [
        f"table public.hashed_{n}, constraint bounds of the partition" for n in (0, 1)
    ]
    assert sum(int(line.rpartition(" ")[2]) for line in hashed) == 50
    assert lines[-1].startswith("Next: look for such rows on the source")


def test_each_foreign_key_that_leads_nowhere_is_named_with_its_rows(restored: Restored):
    found = broken(
        restored,
        "SET session_replication_role = replica;"
        "INSERT INTO refers VALUES (47, 'Nobody', NULL, '{x}', 9, 9), (NULL, NULL, NULL, NULL, 1, NULL);"
        "UPDATE person SET chief = 47 WHERE id = 1;"
        "INSERT INTO log (at, person) VALUES ('2020-01-01', 47), ('2030-01-01', 48);"
        "DELETE FROM log WHERE at = '2025-12-25';"
        "DELETE FROM person WHERE mood = 'calm'",
    )

    assert found.keys() == {"contract/foreign_keys_valid"}
    assert set(found["contract/foreign_keys_valid"].splitlines()[:-1]) == {
        "table public.log, foreign_key log_person_fkey, refers_to public.person, rows 8",
        "table public.person, foreign_key person_chief_fkey, refers_to public.person, rows 1",
        "table public.refers, foreign_key refers_labels_fkey, refers_to public.person, rows 1",
        "table public.refers, foreign_key refers_mood_fkey, refers_to public.person, rows 1",
        "table public.refers, foreign_key refers_name_fkey, refers_to public.person, rows 2",
        "table public.refers, foreign_key refers_number_region_fkey, refers_to public.person, rows 2",
        "table public.refers, foreign_key refers_person_fkey, refers_to public.person, rows 2",
        "table public.remark, foreign_key remark_log_id_log_at_fkey, refers_to public.log, rows 1",
    }


def test_a_key_that_two_rows_have_is_named_although_the_index_says_otherwise(restored: Restored):
    def after(statement: str) -> tuple[str, ...]:
        set_unique = "UPDATE pg_index SET indisunique = {} WHERE indrelid IN ('keys'::regclass, 'citizens'::regclass)"
        return set_unique.format("false"), statement, set_unique.format("true")

    found = broken(
        restored,
        *after(
            "INSERT INTO keys VALUES (7, 'B', 'the one'), (1, 'A', 'x'), (1, 'a', 'deleted'), (NULL, NULL, NULL);"
            "INSERT INTO citizens VALUES ('ADA')"
        ),
    )

    # By citext's own equality, a constant, an expression, without case, with NULLs alike, by patterns, deferrable.
    assert found.keys() == {"contract/unique_keys_valid"}
    assert {line.split(", ")[1] for line in found["contract/unique_keys_valid"].splitlines()[:-1]} == {
        "index citizens_pkey",
        "index keys_expr_idx",
        "index keys_lower_expr_idx",
        "index keys_name_id_state_idx",
        "index keys_id_name_state_idx",
        "index keys_id_name_state_key",
        "index keys_state_id_name_idx",
    }


def test_each_sequence_that_will_repeat_itself_is_named_with_its_column(restored: Restored):
    found = broken(
        restored,
        "SELECT setval('log_id_seq', 13)",
        "SELECT setval('log_id_seq', 13, false)",
        """SELECT setval('"Shared (''one'')"', 2)""",
        "SELECT setval('small_id_seq', 5, false)",
        "SELECT setval('small_down_seq', -4)",
        "SELECT setval('person_id_seq', 1, false)",
        "INSERT INTO odd_numbers VALUES (4001)",
        "SELECT setval('empty_one_id_seq', 7); SELECT setval('never_called', 7)",
    )

    assert found.keys() == {"contract/sequences_ahead"}
    shared = """sequence public."Shared ('one')", next_value 3"""
    assert set(found["contract/sequences_ahead"].splitlines()[:-1]) == {
        "sequence public.log_id_seq, next_value 13, table public.log_new, column id, holds_up_to 14",
        f"{shared}, table public.draws_a, column id, holds_up_to 3",
        "sequence public.odd_numbers_id_seq, next_value 7, table public.odd_numbers, column id, holds_up_to 4001",
        "sequence public.person_id_seq, next_value 1, table public.person, column id, holds_up_to 3",
        "sequence public.small_down_seq, next_value -5, table public.small, column down, holds_up_to -5",
        "sequence public.small_id_seq, next_value 5, table public.small, column id, holds_up_to 5",
    }


def test_an_index_that_was_never_finished_is_named(restored: Restored):
    copy = restored.copy()
    with pytest.raises(Exception, match="could not create unique index"):
        query_all(restored.dsn(copy.database), "CREATE UNIQUE INDEX CONCURRENTLY half_made ON log_old (person)")

    found = failed(run_contract(copy, DEFAULTS))

    assert found.keys() == {"contract/indexes_valid"}
    assert "index public.half_made, table log_old, is_valid f" in found["contract/indexes_valid"]


def test_an_extension_or_a_library_that_is_not_here_is_named(restored: Restored):
    found = broken(
        restored,
        "UPDATE pg_extension SET extversion = '47.0' WHERE extname = 'hstore'",
        "UPDATE pg_proc SET probin = '$libdir/postgis-3' WHERE proname = 'citext_eq'",
    )

    lines = found["contract/extensions_present"].splitlines()
    assert lines[0].startswith("missing extension, what hstore 47.0, here 1.")
    assert lines[1] == "missing library, what $libdir/postgis-3, here NULL"


def test_a_relation_without_its_file_is_named(restored: Restored):
    copy = restored.copy()
    ((path,),) = query_all(restored.dsn(copy.database), "SELECT pg_relation_filepath('log_old_pkey')")
    (restored.cluster.postgres.data_directory / path).unlink()

    found = failed(run_contract(copy, DEFAULTS))

    assert f"relation public.log_old_pkey, kind i, file {path}" in found["contract/relations_there"]


def test_a_collation_of_another_version_is_named(restored: Restored):
    found = broken(restored, "UPDATE pg_collation SET collversion = '47' WHERE collname = 'caseless'")

    assert found.keys() == {"contract/collations_same"}
    assert found["contract/collations_same"].startswith("collation caseless, built_with 47, here 1")
