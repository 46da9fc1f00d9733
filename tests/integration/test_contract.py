"""What must hold of a restored database: the default checks bear every kind of thing, and find each kind of damage."""

from __future__ import annotations

import re
import struct
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dev.servers.postgres import BIN_DIR
from pv_backup.services.errors import ConfigurationError, RestoreFailed
from pv_backup.services.evidence.document import Check, Result
from pv_backup.services.export_sources import DumpSource
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.amcheck import amcheck
from pv_backup.services.restoration.contract import SHOWN_CHARACTERS, SHOWN_ROWS, run_contract, run_contract_everywhere
from pv_backup.services.row_counts import count_rows
from pv_backup.services.settings import Settings
from tests.support.clusters import ClusterTemplate, SourceCluster, query_all

pytestmark = [pytest.mark.case("TC-NOM-04"), pytest.mark.case("TC-ERR-07")]

DEFAULTS = Settings.model_fields["contract_directory"].default
EVERY_KIND = Path(__file__).with_name("every_kind.sql")
DOCUMENTED = Path(__file__).parents[2] / "docs" / "contract.md"
KINDS = 'Every "Kind"'
PAGE_BYTES = 8192


class Restored:
    """A cluster as a drill would have it, with a database of every kind of thing, and copies of it to break."""

    def __init__(self, cluster: SourceCluster) -> None:
        self.cluster = cluster
        self._numbers = count(1)
        self._made: list[str] = []
        self.run("CREATE DATABASE {}", KINDS)
        command = [BIN_DIR / "psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--file={EVERY_KIND}"]
        subprocess.run([*command, self.dsn(KINDS)], check=True, capture_output=True)

    def dsn(self, database: str) -> str:
        return make_conninfo(self.cluster.dsn, dbname=database, client_encoding="UTF8")

    def server(self, database: str) -> Server:
        return replace(self.cluster.server, params={**self.cluster.server.params, "dbname": database})

    def run(self, statement: str, *names: str) -> None:
        text = sql.SQL(statement).format(*map(sql.Identifier, names))
        query_all(self.cluster.dsn, text)

    def copy(self, *statements: str) -> Server:
        """Another database of every kind of thing, with something done to it."""
        name = f"Copy {next(self._numbers)}"
        self.run("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", name, KINDS)
        self._made.append(name)
        for statement in statements:
            query_all(self.dsn(name), statement)
        return self.server(name)

    def empty(self, name: str, *, encoding: str) -> Server:
        self.run(f"CREATE DATABASE {{}} TEMPLATE template0 ENCODING {encoding} LOCALE 'C'", name)
        self._made.append(name)
        return self.server(name)

    def drop_copies(self) -> None:
        while self._made:
            self.run("DROP DATABASE {} WITH (FORCE)", self._made.pop())


@pytest.fixture(scope="module")
def kinds(cluster_template: ClusterTemplate) -> Iterator[Restored]:
    cluster = cluster_template.new(receiving=False)
    try:
        yield Restored(cluster)
    finally:
        cluster.discard()


@pytest.fixture
def restored(kinds: Restored) -> Iterator[Restored]:
    yield kinds
    kinds.drop_copies()


@pytest.fixture
def directory(tmp_path: Path) -> Callable[..., Path]:
    """Makes a contract of one default check that always passes, and of own ones."""

    def make(**own: str) -> Path:
        (tmp_path / "own").mkdir()
        (tmp_path / "fine.sql").write_text("SELECT 1 WHERE false\n")
        for name, query in own.items():
            (tmp_path / "own" / f"{name}.sql").write_text(query)
        return tmp_path

    return make


def failed(checks: list[Check]) -> dict[str, str]:
    """The details of those that failed, by name without database."""
    return {check.name.partition(" (")[0]: check.detail for check in checks if check.result is not Result.PASSED}


def broken(restored: Restored, *statements: str) -> dict[str, str]:
    """What the default checks say of a database in which that was done."""
    return failed(run_contract(restored.copy(*statements), DEFAULTS))


def test_no_default_check_objects_to_any_kind_of_thing(restored: Restored):
    checks = run_contract(restored.server(KINDS), DEFAULTS)

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


def test_own_checks_run_in_the_dumped_database_and_the_defaults_everywhere(restored: Restored, directory):
    contract = directory(no_evidence="SELECT current_database() AS found")
    restored.run("CREATE DATABASE closed ALLOW_CONNECTIONS false")

    checks = run_contract_everywhere(restored.server, contract, KINDS)

    names = [check.name for check in checks]
    assert names[:2] == [f"contract/fine ({KINDS})", f"contract/own/no_evidence ({KINDS})"]
    assert {"contract/fine (postgres)", "contract/fine (template1)"} <= set(names[2:])
    assert not [name for name in names[2:] if "own" in name or KINDS in name or "closed" in name]
    assert failed(checks) == {"contract/own/no_evidence": f"found {KINDS}"}
    assert len(run_contract_everywhere(restored.server, contract, None)) == len(names) - 1


def test_a_check_that_postgresql_refuses_has_failed_and_the_others_are_run(restored: Restored, directory):
    contract = directory(
        a_broken="-- é, … A typo.\n-- Next: mend the typo,\n-- then go on.\nSELECT 1\n  FORM evidence",
        b_missing="SELECT * FROM nowhere",
        c_two="SELECT 1 WHERE false; COMMIT; CREATE TABLE escaped (n int)",
        d_writes="SELECT setval('never_called', 4747)",
        e_empty="-- Nothing but a comment.\n",
        f_fatal="SELECT pg_terminate_backend(pg_backend_pid())",
        g_division="SELECT 1 / n FROM generate_series(0, 1) n",
        h_fine="SELECT 1 WHERE false; -- The end.\n",
    )

    checks = run_contract(restored.server(KINDS), contract)
    found = failed(checks)

    assert [check.name.partition(" ")[0] for check in checks if check.result is Result.PASSED] == [
        "contract/fine",
        "contract/own/h_fine",
    ]
    assert 'syntax error at or near "evidence" (SQLSTATE 42601) in line 5 of its file' in found["contract/own/a_broken"]
    assert found["contract/own/a_broken"].splitlines()[-1] == "Next: mend the typo, then go on."
    assert 'relation "nowhere" does not exist' in found["contract/own/b_missing"]
    assert "cannot insert multiple commands" in found["contract/own/c_two"]
    assert "cannot execute setval() in a read-only transaction" in found["contract/own/d_writes"]
    assert "syntax error at end of input" in found["contract/own/e_empty"]
    assert "terminating connection" in found["contract/own/f_fatal"]
    assert "division by zero" in found["contract/own/g_division"]
    assert query_all(restored.dsn(KINDS), "SELECT to_regclass('escaped'), last_value FROM never_called") == [(None, 1)]


def test_an_error_quotes_no_row_whatever_it_comes_from(restored: Restored, directory):
    server = restored.copy(
        "CREATE TABLE folk (name text); INSERT INTO folk VALUES ('Dupont')",
        "CREATE FUNCTION raised(text) RETURNS int LANGUAGE plpgsql AS"
        " $$BEGIN RAISE EXCEPTION 'the name is %', $1 USING ERRCODE = '23505'; END$$",
        "CREATE FUNCTION executed(text) RETURNS int LANGUAGE plpgsql AS"
        " $$DECLARE n int; BEGIN EXECUTE format('SELECT 1 / 0 FROM folk WHERE name = %L', $1) INTO n; RETURN n; END$$",
    )
    contract = directory(
        a_date="SELECT name::date FROM folk",
        b_number="SELECT name::int FROM folk",
        c_array="SELECT (name || '\"')::text[] FROM folk",
        d_raised="SELECT raised(name) FROM folk",
        e_executed="SELECT executed(name) FROM folk",
        f_json="SELECT name::json FROM folk",
    )

    found = failed(run_contract(server, contract))

    assert len(found) == 6
    assert "Dupont" not in str(found)
    assert found["contract/own/a_date"] == 'invalid input syntax for type date: "…" (SQLSTATE 22007)'
    assert found["contract/own/d_raised"].endswith("(SQLSTATE 23505)")
    assert found["contract/own/e_executed"] == "division by zero (SQLSTATE 22012)"


def test_a_server_that_does_not_let_us_in_is_the_restored_one(restored: Restored):
    nobody = replace(restored.server("x"), params={**restored.server("x").params, "dbname": "not there"})

    with pytest.raises(RestoreFailed, match=r'restored database not there .*database "not there" does not exist'):
        count_rows(nobody)
    with pytest.raises(RestoreFailed, match="the restored server does not tell its databases"):
        run_contract_everywhere(lambda name: nobody, DEFAULTS, None)


def test_of_the_rows_only_the_first_get_into_the_evidence_and_long_values_are_cut(restored: Restored, directory):
    contract = directory(
        many="SELECT n, repeat('x', 100000) AS long FROM generate_series(1, 1000000) n",
        odd="SELECT 'infinity'::date AS day, '20000-01-01 BC' AS old, NULL AS none, E'two\\nlines' AS text, 1e400 AS n",
    )

    found = failed(run_contract(restored.server(KINDS), contract))

    lines = found["contract/own/many"].splitlines()
    assert lines[0] == f"n 1, long {'x' * SHOWN_CHARACTERS}…"
    assert len(lines) == SHOWN_ROWS + 1
    assert lines[-1] == "and more rows"
    assert found["contract/own/odd"].startswith("day infinity, old 20000-01-01 BC, none NULL, text two lines, n 1000")


def test_no_check_is_no_proof(restored: Restored, tmp_path: Path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.sql").write_text("SELECT 1 WHERE false")

    with pytest.raises(ConfigurationError, match=r"no \*\.sql file"):
        run_contract(restored.server(KINDS), tmp_path)
    with pytest.raises(ConfigurationError, match="no such directory"):
        run_contract_everywhere(restored.server, tmp_path / "nowhere", None)


def test_a_sound_database_passes_pg_amcheck_and_so_does_the_whole_cluster(restored: Restored):
    one, every = amcheck(restored.server(KINDS)), amcheck(restored.server("postgres"), everywhere=True)

    assert (one.name, one.result) == (f"pg_amcheck ({KINDS})", Result.PASSED), one.detail
    assert (every.name, every.result) == ("pg_amcheck", Result.PASSED), every.detail
    relations, pages = (int(check.detail.split()[0]) for check in (one, every))
    assert 300 < relations < pages


@pytest.mark.parametrize(
    ("relation", "said"),
    [
        # The transaction that inserted a row, and a key.
        ("notes", r'heap table ".*\.public\.notes", block 1, offset 2'),
        ("notes_id_idx", r'btree index ".*\.public\.notes_id_idx"'),
    ],
)
def test_a_damaged_page_is_found(restored: Restored, relation: str, said: str):
    copy = restored.copy(
        "CREATE TABLE notes AS SELECT n AS id, 'note ' || n AS text FROM generate_series(1, 5000) n",
        "CREATE INDEX notes_id_idx ON notes (id)",
        "CHECKPOINT",
    )
    ((path,),) = query_all(restored.dsn(copy.database), f"SELECT pg_relation_filepath('{relation}')")
    postgres = restored.cluster.postgres
    postgres.stop()
    with (postgres.data_directory / path).open("r+b") as file:
        file.seek(PAGE_BYTES)  # the page after the first
        page = file.read(PAGE_BYTES)
        # Where its second line pointer leads (PostgreSQL 15, section 73.6); a key comes behind 8 bytes.
        item = struct.unpack_from("<I", page, 28)[0] & 0x7FFF
        place = item + (8 if relation == "notes_id_idx" else 0)
        file.seek(PAGE_BYTES + place)
        file.write(bytes(byte ^ 0xFF for byte in page[place : place + 4]))
    postgres.start()

    check = amcheck(copy)

    assert check.result is Result.FAILED
    assert re.search(said, check.detail), check.detail
    assert amcheck(restored.server("postgres"), everywhere=True).result is Result.FAILED


def test_rows_that_can_not_be_counted_fail_by_name(restored: Restored):
    copy = restored.copy("CREATE TABLE lost AS SELECT 1 AS n", "CHECKPOINT")
    ((path,),) = query_all(restored.dsn(copy.database), "SELECT pg_relation_filepath('lost')")
    (restored.cluster.postgres.data_directory / path).unlink()

    with pytest.raises(RestoreFailed, match=rf"{copy.database} can't be counted: could not open file"):
        count_rows(copy)


def test_the_documented_check_finds_what_it_is_for(restored: Restored, directory):
    (example,) = re.findall(r"```sql\n(.*?)```", DOCUMENTED.read_text(), re.DOTALL)
    contract = directory(evidence_sealed=example)
    server = restored.copy(
        "CREATE SCHEMA legal",
        "CREATE TABLE legal.piece (id int PRIMARY KEY, content bytea, seal bytea)",
        "CREATE TABLE legal.custody (piece_id int REFERENCES legal.piece, number int)",
        "INSERT INTO legal.piece SELECT n, n::text::bytea, sha512(n::text::bytea) FROM generate_series(4710, 4712) n",
        "INSERT INTO legal.custody SELECT id, n FROM legal.piece, generate_series(1, 4) n",
    )
    assert failed(run_contract(server, contract)) == {}
    query_all(restored.dsn(server.database), "UPDATE legal.piece SET content = 'other' WHERE id = 4711")
    query_all(restored.dsn(server.database), "DELETE FROM legal.custody WHERE piece_id = 4712 AND number = 2")

    found = failed(run_contract(server, contract))["contract/own/evidence_sealed"]

    assert textwrap.indent(found, "    ") in DOCUMENTED.read_text()
