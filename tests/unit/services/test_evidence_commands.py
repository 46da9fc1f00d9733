"""`evidence verify` and `report`, as their reader meets them who has a file, a key and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pv_backup.cli.main import main
from pv_backup.services.evidence.public_keys import pem_of
from tests.support.evidence import LocalKey, passed

pytestmark = pytest.mark.case("TC-INV-09")

SIGNER = LocalKey()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in os.environ:
        if name.startswith(("PV_BACKUP_", "AWS_", "VAULT_", "AIRFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    Path("drill.json").write_text(SIGNER.sign(passed().to_json()))
    Path("key.pem").write_text(pem_of(SIGNER.public))
    Path("stranger.pem").write_text(pem_of(LocalKey().public))
    Path("binary").write_bytes(b"\xff\xfe")
    return tmp_path


def test_a_document_is_verified_with_one_of_several_keys(files: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evidence", "verify", "drill.json", "--public-key", "stranger.pem", "--public-key", "key.pem"]) == 0

    assert SIGNER.public.fingerprint in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "key", "status", "words"),
    [
        ("missing.json", "key.pem", 1, "missing.json"),
        ("drill.json", "missing.pem", 1, "missing.pem"),
        ("drill.json", "drill.json", 1, "no public keys"),
        ("binary", "key.pem", 1, "no text in UTF-8"),
        ("key.pem", "key.pem", 2, "no JSON"),
        ("drill.json", "stranger.pem", 2, "does not hold"),
    ],
)
def test_what_cannot_be_verified_is_said(
    files: Path, capsys: pytest.CaptureFixture[str], file: str, key: str, status: int, words: str
):
    assert main(["evidence", "verify", file, "--public-key", key]) == status

    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err


def test_the_page_is_written_to_a_new_file_or_to_standard_output(files: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evidence", "report", "drill.json"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("<!DOCTYPE html>")

    assert main(["evidence", "report", "drill.json", "--output", "drill.html"]) == 0
    assert Path("drill.html").read_text() == shown
    assert main(["evidence", "report", "drill.json", "--output", "drill.html"]) == 1
    assert "drill.html" in capsys.readouterr().err


def test_other_commands_still_ask_for_their_settings(files: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evidence", "list"]) == 1
    assert "PV_BACKUP_BUCKET is missing" in capsys.readouterr().err
