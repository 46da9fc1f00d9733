"""INV-47-07 as architecture: no module but the state machine writes a status."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.case("TC-INV-07")

ROOT = Path(__file__).parents[3]
STATE_MACHINE = Path("plugins/pv_backup/services/state.py")
RAW_WRITE = re.compile(r"(update|insert\s+into|merge\s+into|copy)\s+\S*backup_executions", re.IGNORECASE)


def status_writes(source: str) -> list[int]:
    """The lines that write a `status`: an assignment, setattr, values(status=…), a dict for values, or raw SQL."""
    found = []
    for node in ast.walk(ast.parse(source)):
        targets: list[ast.expr] = []
        match node:
            case ast.Assign(targets=several):
                targets = [leaf for target in several for leaf in ast.walk(target) if isinstance(leaf, ast.expr)]
            case ast.AugAssign(target=target) | ast.AnnAssign(target=ast.Attribute() as target):
                targets = [target]
            case ast.Call(func=ast.Name(id="setattr"), args=[_, ast.Constant(value="status"), _]):
                found.append(node.lineno)
            case ast.Call(
                func=ast.Attribute(attr="values" | "on_conflict_do_update" | "update") | ast.Name(id="BackupExecution"),
                args=arguments,
                keywords=keywords,
            ):
                names = [keyword.arg for keyword in keywords]
                names += [
                    key.value
                    for argument in arguments
                    if isinstance(argument, ast.Dict)
                    for key in argument.keys
                    if isinstance(key, ast.Constant)
                ]
                if "status" in names:
                    found.append(node.lineno)
            case ast.Constant(value=str(text)) if RAW_WRITE.search(text):
                found.append(node.lineno)
        found += [
            node.lineno
            for target in targets
            if isinstance(target, ast.Attribute) and target.attr == "status" and isinstance(target.ctx, ast.Store)
        ]
    return found


@pytest.mark.parametrize(
    "smuggled",
    [
        "row.status = 'SUCCESS'",
        "row.status, row.day = 'SUCCESS', None",
        "row.status += 'X'",
        "row.status: str = 'SUCCESS'",
        "setattr(row, 'status', 'SUCCESS')",
        "session.execute(update(T).values(status='SUCCESS'))",
        "session.execute(update(T).values({'status': 'SUCCESS'}))",
        "session.query(T).update({'status': 'SUCCESS'})",
        "BackupExecution(status='SUCCESS')",
        "session.execute(text('UPDATE pv_backup.backup_executions SET status = 1'))",
    ],
)
def test_the_search_sees_each_way_to_write_a_status(smuggled):
    assert status_writes(smuggled) == [1]


@pytest.mark.parametrize("innocent", ["if row.status == 'SUCCESS': pass", "status = row.status", "select(T.status)"])
def test_the_search_lets_readers_be(innocent):
    assert status_writes(innocent) == []


def test_only_the_state_machine_writes_a_status_and_in_one_place():
    writes = {
        path.relative_to(ROOT): status_writes(path.read_text(encoding="utf-8"))
        for folder in ("plugins", "dags")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {path for path, lines in writes.items() if lines} == {STATE_MACHINE}
    assert len(writes[STATE_MACHINE]) == 1
