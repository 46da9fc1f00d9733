"""Terraform's own formatter, and checkov: every exception from its rules is argued where it is made."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dev.bootstrap import TOOLS
from dev.provider_schemas.excerpt import TERRAFORM
from tests.infrastructure.terraform.terraform_program import needs_terraform, terraform

pytestmark = pytest.mark.case("TC-INF-01")

CHECKOV = TOOLS / "bin" / "checkov"
SKIPPED = re.compile(r"^\s*#checkov:skip=(\w+):(.*)$", re.MULTILINE)
# Checkov's rules, and what breaks them.
MISTAKES = {
    "CKV_AWS_7": ("enable_key_rotation     = true", "enable_key_rotation     = false"),
    "CKV_AWS_55": ("ignore_public_acls      = true", "ignore_public_acls      = false"),
    "CKV_AWS_145": ('sse_algorithm     = "aws:kms"', 'sse_algorithm     = "AES256"'),
}


@needs_terraform
def test_the_files_are_formatted():
    answer = terraform("fmt", "-check", "-recursive", "-diff", folder=TERRAFORM)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], list[dict[str, Any]]]:
    """What checkov says of `ours`, a copy, and of `mistaken`, another that has no exceptions and some mistakes.

    Both in one start, since that is what takes time.
    """
    folder = tmp_path_factory.mktemp("checked")
    shutil.copytree(TERRAFORM, folder / "ours")
    shutil.copytree(TERRAFORM, folder / "mistaken", ignore=shutil.ignore_patterns("examples"))
    for old, new in MISTAKES.values():
        (file,) = (file for file in (folder / "mistaken").glob("*.tf") if old in file.read_text())
        file.write_text(file.read_text().replace(old, new))
    for file in (folder / "mistaken").glob("*.tf"):
        file.write_text(SKIPPED.sub("", file.read_text()))
    command = [CHECKOV, "--framework", "terraform", "--skip-download", "--output", "json", "--soft-fail"]
    answer = subprocess.run([*command, "--directory", folder], capture_output=True, text=True, check=True)
    results = json.loads(answer.stdout)["results"]

    def of(place: str, outcome: str) -> list[dict[str, Any]]:
        found = results[f"{outcome}_checks"]
        return [check for check in found if Path(check["file_abs_path"]).is_relative_to(folder / place)]

    assert of("ours", "passed")
    return of


def test_checkov_has_no_complaint(checks):
    complaints = [(check["check_id"], check["resource"], check["check_name"]) for check in checks("ours", "failed")]
    assert complaints == []


def test_every_exception_has_a_reason(checks):
    reasons = dict(found for file in TERRAFORM.rglob("*.tf") for found in SKIPPED.findall(file.read_text()))
    assert [rule for rule, reason in reasons.items() if len(reason.split()) < 6] == []
    assert {check["check_id"] for check in checks("ours", "skipped")} == set(reasons)


def test_checkov_complains_of_mistakes_and_of_what_the_exceptions_are_for_and_of_nothing_else(checks):
    exceptions = {rule for file in TERRAFORM.rglob("*.tf") for rule, _ in SKIPPED.findall(file.read_text())}
    assert {check["check_id"] for check in checks("mistaken", "failed")} == exceptions | set(MISTAKES)
