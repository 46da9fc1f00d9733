"""deploy/compose/secrets.sh: drawn once, kept for good, for nobody else's eyes."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path

import pytest

from tests.infrastructure.compose.composition import drawn_secrets

pytestmark = pytest.mark.case("TC-INF-04")

_KEYS = {"SECRET_AIRFLOW_FERNET", "SECRET_VAULT_SEAL_KEY"}


def test_what_was_drawn_stays_and_what_is_missing_comes(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    first = drawn_secrets(file)
    file.write_text("".join(line for line in file.read_text().splitlines(True) if "REDIS" not in line))
    second = drawn_secrets(file)
    assert set(second) == set(first)
    assert {name for name in first if second[name] != first[name]} == {"SECRET_REDIS"}


def test_what_somebody_set_stays(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("SECRET_REDIS=mine\nCOMPOSE_PROJECT_NAME=other\n")
    secrets = drawn_secrets(file)
    assert (secrets["SECRET_REDIS"], secrets["COMPOSE_PROJECT_NAME"]) == ("mine", "other")


def test_nobody_else_may_read_them_whatever_the_umask(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.touch(mode=0o644)
    before = os.umask(0)
    try:
        drawn_secrets(file)
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o600


def test_they_are_long_different_and_need_no_quoting(tmp_path: Path) -> None:
    drawn, again = drawn_secrets(tmp_path / "one"), drawn_secrets(tmp_path / "two")
    values = [*drawn.values(), *again.values()]
    assert len(set(values)) == len(values)
    for name, value in drawn.items():
        if name in _KEYS:
            assert len(base64.b64decode(value, altchars=b"-_" if "FERNET" in name else None, validate=True)) == 32
        else:
            assert re.fullmatch(r"[\w-]{16,}", value), name
