"""The page that an auditor is handed: it says all that matters, nothing by itself, and its commands are true."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from pv_backup.services.drill_errors import EvidenceInvalid
from pv_backup.services.evidence.public_keys import pem_of
from pv_backup.services.evidence.report import html
from pv_backup.services.evidence.texts import mail_subject, message, span, webhook_json
from tests.support.evidence import DRILL_ID, PASSED, LocalKey, failed, passed

pytestmark = pytest.mark.case("TC-NOM-04", "TC-INV-09")

ROOT = Path(__file__).parents[3]
SIGNER = LocalKey()
TEXT = SIGNER.sign(passed().to_json())


def words(page: str) -> str:
    """What a person reads, on one line."""
    body = page[page.index("<body>") :]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_it_shows_what_an_auditor_asks_for():
    page = words(html(TEXT))

    for needed in (
        "2026-11-22 09:00:00 UTC PASSED Time to restore",
        "Target 2026-11-22 08:30:00.000000 UTC",
        "Reached 2026-11-22 08:29:59.871114 UTC",
        "(RTO) 1 min 23 s",
        "Age of the data (RPO) 6 h 29 min",
        "2E/7A000188, timeline 3",
        "412 files read by recovery",
        "1,204,411 in 2 tables",
        "16 passed, 1 skipped",
        "pg_verifybackup 15.14",
        "pv-backup-evidence, version 1",
        DRILL_ID,
        PASSED["run_id"],
        PASSED["bucket"],
    ):
        assert needed in page
    for leg in PASSED["legs"]:
        for used in leg["artefacts"]:
            assert {used["key"], used["hash_sha3_256"], used["backup_id"]} <= set(page.split())
        for check in leg["checks"]:
            assert check["name"] in page
            assert check["detail"] in page


def test_of_a_failed_drill_it_shows_every_failure_with_code_and_next_step():
    page = words(html(SIGNER.sign(failed().to_json())))

    assert "2026-11-22 09:00:00 UTC FAILED Time to restore" in page
    for failure in failed().failures:
        assert f"{failure.code}" in page
        assert failure.cause in page
        assert f"Next: {failure.remedy}" in page


def test_it_needs_nothing_beside_it_and_runs_nothing():
    for page in (html(TEXT), html(failed())):
        assert "default-src 'none'" in page
        assert not re.search(r"<(script|link|img|iframe|object|embed|form|a)\b|@import|url\(|https?://|\son\w+=", page)


def test_what_an_error_quoted_is_text_and_not_markup():
    quoted = '<script>alert(1)</script> & "x" {{ evidence }}'

    page = html(failed(f"rows: {quoted}"))

    assert "<script>" not in page
    assert unescape(page).count(quoted) == 2


def test_evidence_that_nobody_signed_says_so():
    assert "NOT SIGNED" in html(failed())
    assert "NOT SIGNED" not in html(TEXT)
    assert "openssl" not in html(failed())


def test_what_is_no_evidence_has_no_page():
    with pytest.raises(EvidenceInvalid):
        html("{}")


def test_a_drill_that_came_to_nothing_has_a_page():
    page = words(html(failed().model_copy(update={"legs": [], "failures": failed().failures[:1]})))

    assert "none was made" in page


def shell(commands: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands], cwd=directory, capture_output=True, text=True, timeout=30
    )


def commands_of_the_page() -> str:
    """Those for openssl, as a person copies them."""
    (block,) = re.findall(r"<pre>(.*?)</pre>", html(TEXT), re.DOTALL)
    return unescape(block).partition("\n\n")[2].replace(f"drill_{DRILL_ID}.json", "drill.json")


def commands_of_the_manual() -> str:
    (block,) = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "evidence.md").read_text(), re.DOTALL)
    return block


@pytest.mark.parametrize("commands", [commands_of_the_page, commands_of_the_manual])
@pytest.mark.parametrize("ending", ["", "\n"])
def test_openssl_alone_verifies_a_document(commands, ending: str, tmp_path: Path):
    (tmp_path / "key.pem").write_text(pem_of(SIGNER.public) + pem_of(LocalKey(version=2).public))
    (tmp_path / "drill.json").write_text(TEXT + ending)
    assert "Verified Successfully" in shell(commands(), tmp_path).stdout

    (tmp_path / "drill.json").write_text(TEXT.replace("83.412", "53.412") + ending)
    refused = shell(commands(), tmp_path)
    assert refused.returncode != 0
    assert "Verified Successfully" not in refused.stdout


def test_the_fingerprint_is_that_of_the_manuals_command(tmp_path: Path):
    (tmp_path / "key.pem").write_text(pem_of(SIGNER.public))
    (command,) = re.findall(r"^    (openssl pkey .*)$", (ROOT / "docs" / "evidence.md").read_text(), re.MULTILINE)

    assert SIGNER.public.fingerprint in shell(command, tmp_path).stdout


@pytest.mark.skipif(not shutil.which("chromium"), reason="printing needs Debian's chromium")
def test_a_normal_drill_is_one_sheet_of_a4(tmp_path: Path):
    (tmp_path / "drill.html").write_text(html(TEXT))
    printing = ["--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'drill.pdf'}", str(tmp_path / "drill.html")]
    subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            *printing,
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    pdf = (tmp_path / "drill.pdf").read_bytes()
    assert re.findall(rb"/Count (\d+)", pdf) == [b"1"]
    (width, height) = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)[0]
    assert (round(float(width)), round(float(height))) == (595, 842)


def test_a_mails_subject_tells_the_verdict():
    assert mail_subject(passed()).split()[:3] == ["[pv-backup]", "EVIDENCE", "DRILL-PASSED"]
    assert "DRILL-FAILED 2026-11-22 target 2026-11-22T08:30" in mail_subject(failed())


def test_a_chat_gets_a_summary_and_the_document_untouched():
    content = webhook_json(failed("a < b\nand & more"), TEXT)

    assert content["evidence"] == TEXT
    assert (content["code"], content["verdict"], content["drill_id"]) == ("DRILL-FAILED", "FAILED", DRILL_ID)
    assert "CONTRACT a &lt; b and &amp; more" in content["text"].splitlines()
    assert "1 min 23 s (RTO)" in message(passed())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "not measured"),
        (0.0, "0 ms"),
        (0.0349, "35 ms"),
        (0.9999, "1.0 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (83.412, "1 min 23 s"),
        (3600, "1 h"),
        (23398.7, "6 h 29 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_spans_are_written_as_people_say_them(seconds: float | None, text: str):
    assert span(seconds) == text
