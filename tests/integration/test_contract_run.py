"""How a contract is run: which checks where, what counts as failed, and what of it may get into the evidence."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pv_backup.services.errors import ConfigurationError, RestoreFailed
from pv_backup.services.evidence.document import Result
from pv_backup.services.restoration.contract import SHOWN_CHARACTERS, SHOWN_ROWS, run_contract, run_contract_everywhere
from pv_backup.services.row_counts import count_rows
from tests.integration.contract_world import DEFAULTS, KINDS, Restored, failed
from tests.support.clusters import query_all

pytestmark = [pytest.mark.case("TC-NOM-04"), pytest.mark.case("TC-ERR-07")]

DOCUMENTED = Path(__file__).parents[2] / "docs" / "contract.md"


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


def test_own_checks_run_in_the_dumped_database_and_the_defaults_everywhere(restored: Restored, directory):
    contract = directory(no_evidence="SELECT current_database() AS found")
    restored.run("CREATE DATABASE closed ALLOW_CONNECTIONS false")

    checks = list(run_contract_everywhere(restored.server, contract, KINDS))

    names = [check.name for check in checks]
    assert names[:2] == [f"contract/fine ({KINDS})", f"contract/own/no_evidence ({KINDS})"]
    assert {"contract/fine (postgres)", "contract/fine (template1)"} <= set(names[2:])
    assert not [name for name in names[2:] if "own" in name or KINDS in name or "closed" in name]
    assert failed(checks) == {"contract/own/no_evidence": f"found {KINDS}"}
    assert len(list(run_contract_everywhere(restored.server, contract, None))) == len(names) - 1


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

    checks = list(run_contract(restored.server(KINDS), contract))
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
