"""A program that hangs or fails where nobody restores yet, or where only its answer is wanted, is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pv_backup.services import postgres
from pv_backup.services.errors import ConfigurationError, RestoreFailed
from pv_backup.services.postgres import Server
from pv_backup.services.restoration import way_in

pytestmark = pytest.mark.case("TC-NOM-04")


@pytest.mark.parametrize(
    ("script", "mode", "said"),
    [
        ("#!/bin/sh\necho broken libpq >&2; exit 3\n", 0o755, "broken libpq"),
        ("#!/bin/sh\nexec sleep 60\n", 0o755, "timed out"),
        ("no program", 0o755, "Exec format error"),
    ],
    ids=["fails", "hangs", "is none"],
)
def test_a_tool_that_does_not_tell_its_version_is_named(tmp_path: Path, monkeypatch, script, mode, said):
    monkeypatch.setattr(postgres, "_VERSION_PATIENCE_S", 3)
    tool = tmp_path / "pg_dump"
    tool.write_text(script)
    tool.chmod(mode)

    with pytest.raises(ConfigurationError, match=said) as refused:
        Server({}, tmp_path).tool_version("pg_dump")

    assert str(tool) in refused.value.what


def test_a_single_user_mode_that_hangs_ends_the_restoration(monkeypatch):
    monkeypatch.setattr(way_in, "_PATIENCE_S", 0.2)

    with pytest.raises(RestoreFailed, match=r"did not name its superuser in 0\.2 s"):
        way_in.find_way_in(["sh", "-c", "exec sleep 60"], environment={"PATH": "/usr/bin:/bin"}, user=None)
