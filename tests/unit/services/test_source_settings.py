"""What comes back of ALTER SYSTEM after a recovery, and what stays away."""

from __future__ import annotations

from pathlib import Path

import pytest

from pv_backup.services.restoration.source_settings import put_back, set_aside

pytestmark = pytest.mark.case("TC-NOM-03")

OWN = b"# ALTER SYSTEM\nwork_mem = '7MB'\narchives.kept = '3'\n"


@pytest.mark.parametrize("text", [OWN, b"", None], ids=["settings", "empty", "absent"])
def test_what_is_harmless_comes_back_as_it_was_for_its_owner_alone(tmp_path: Path, text: bytes | None):
    path = tmp_path / "postgresql.auto.conf"
    if text is not None:
        path.write_bytes(text)

    set_aside(tmp_path)
    assert not path.exists()
    put_back(tmp_path, user=None, stop_archiving=False)

    assert path.read_bytes() == (text or b"")
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_whatever_postgresql_reads_as_such_a_parameter_is_left_out(tmp_path: Path):
    lines = [
        b"Recovery_Target_Time '2020-01-01'",
        b"\trestore_command='cp'",
        b"ARCHIVE_MODE = always",
        b"work_mem=\xff",
    ]
    (tmp_path / "postgresql.auto.conf").write_bytes(b"\n".join(lines))

    set_aside(tmp_path)
    put_back(tmp_path, user=None, stop_archiving=True)

    assert (tmp_path / "postgresql.auto.conf").read_bytes() == b"work_mem=\xff\narchive_mode = 'off'\n"
    assert (tmp_path / "postgresql.auto.conf.source").read_bytes() == b"\n".join(lines)
