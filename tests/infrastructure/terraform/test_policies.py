"""The policy documents: what Terraform renders is what the development stack enforces, and says what it should."""

from __future__ import annotations

import json
import re
from pathlib import Path
from string import Template
from typing import Any

import pytest

from dev.provider_schemas.excerpt import TERRAFORM
from dev.provisioning.buckets import KMS_KEY_ARN, POLICIES, USER, WATCHDOG, policy_document
from pv_backup.services.settings import RETENTION_DAYS
from tests.infrastructure.terraform.configuration import EXAMPLE, Configuration, literal, texts
from tests.infrastructure.terraform.terraform_program import needs_terraform, terraform

pytestmark = pytest.mark.case("TC-INF-01")

TEMPLATES = sorted(POLICIES.glob("*.tftpl"))
BUCKET, KEY = "arn:aws:s3:::some-bucket", KMS_KEY_ARN
CALL = re.compile(r'templatefile\(\\?"\$\{path\.module\}/policies/(\S+)\.json\.tftpl\\?", \{(.*?)\}\)')
THROUGH_S3 = {"StringLike": {"kms:ViaService": "s3.*.amazonaws.com"}}


def name_of(template: Path) -> str:
    return template.name.removesuffix(".json.tftpl")


def wanted(template: Path) -> set[str]:
    """The names that a template leaves open."""
    return set(Template(template.read_text()).get_identifiers())


def rendered(name: str) -> list[dict[str, Any]]:
    """A template's statements, actions and resources as lists, with its own names for what it leaves open."""
    template = POLICIES / f"{name}.json.tftpl"
    values = {one: one for one in wanted(template)} | {"bucket_arn": BUCKET, "kms_key_arn": KEY}
    statements = json.loads(Template(template.read_text()).substitute(values))["Statement"]
    for statement in statements:
        for part in ("Action", "Resource"):
            statement[part] = statement[part] if isinstance(statement[part], list) else [statement[part]]
    return list(statements)


def rights(name: str) -> set[tuple[str, str]]:
    """(action, resource) of all that a user may."""
    found = rendered(name)
    assert {statement["Effect"] for statement in found} == {"Allow"}
    return {(action, where) for one in found for action in one["Action"] for where in one["Resource"]}


def test_the_backup_user_has_the_rights_of_the_specification_and_those_of_multipart():
    assert rights(USER) == {
        ("s3:PutObject", f"{BUCKET}/*"),
        ("s3:GetObject", f"{BUCKET}/*"),
        ("s3:ListBucket", BUCKET),
        ("s3:AbortMultipartUpload", f"{BUCKET}/*"),
        ("s3:ListMultipartUploadParts", f"{BUCKET}/*"),
        ("s3:ListBucketMultipartUploads", BUCKET),
        ("kms:Encrypt", KEY),
        ("kms:Decrypt", KEY),
        ("kms:GenerateDataKey", KEY),
    }


def test_the_watchdog_only_reads():
    assert rights(WATCHDOG) == {("s3:GetObject", f"{BUCKET}/*"), ("s3:ListBucket", BUCKET), ("kms:Decrypt", KEY)}


@pytest.mark.parametrize("name", [USER, WATCHDOG])
def test_the_key_is_used_through_s3_alone(name: str):
    with_key = [one for one in rendered(name) if any(action.startswith("kms:") for action in one["Action"])]
    assert with_key
    assert all(statement["Condition"] == THROUGH_S3 for statement in with_key)


def test_the_key_itself_gives_each_user_what_its_policy_says_and_administrators_no_use():
    by_sid = {statement["Sid"]: statement for statement in rendered("key")}
    administration = by_sid.pop("AdministerButNotUse")
    assert administration["Principal"] == {"AWS": "account_arn"}
    use = re.compile(r"kms:(\*|.*(Encrypt|Decrypt|GenerateDataKey|CreateGrant|Sign).*)", re.IGNORECASE)
    assert [action for action in administration["Action"] if use.fullmatch(action) or "*" in action] == []
    assert "kms:PutKeyPolicy" in administration["Action"], "without it nobody could ever mend this policy"

    for user, statement in ((USER, by_sid.pop("BackupsThroughS3")), (WATCHDOG, by_sid.pop("LooksThroughS3"))):
        assert statement["Principal"] == {"AWS": f"{user}_arn"}
        assert set(statement["Action"]) == {action for action, where in rights(user) if where == KEY}
        assert statement["Condition"] == THROUGH_S3
    assert by_sid == {}


def test_the_reason_of_each_right_is_written_down():
    """JSON has no comments."""
    reasons = (POLICIES / "README.md").read_text()
    assert {action for name in (USER, WATCHDOG) for action, _ in rights(name) if f"`{action}`" not in reasons} == set()
    assert {file.name.removesuffix(".json.tftpl") for file in TEMPLATES} == set(
        re.findall(r"^## `(\w+)`", reasons, re.M)
    )


@needs_terraform
@pytest.mark.parametrize("template", TEMPLATES, ids=lambda file: file.name)
def test_terraform_renders_what_the_development_stack_renders(template: Path):
    """Python's templates and Terraform's agree only where both know nothing but names in `${}`."""
    values = {name: f"the-{name}" for name in wanted(template)}
    given = ", ".join(f'{name} = "{value}"' for name, value in values.items())
    answer = terraform(
        "console", folder=POLICIES, stdin=f'jsonencode(templatefile("{template.name}", {{ {given} }}))\n'
    )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(json.loads(answer.stdout)) == Template(template.read_text()).substitute(values)


def test_the_stack_differs_by_its_two_names_only():
    statements = json.loads(policy_document(USER, bucket_pattern="some-bucket"))["Statement"]
    assert {where for one in statements for where in [one["Resource"]]} == {BUCKET, f"{BUCKET}/*", KMS_KEY_ARN}


def test_each_template_is_given_what_it_wants():
    """Terraform would say so at the apply, after a quarter of it was made."""
    given: dict[str, set[str]] = {}
    for block in Configuration.of(TERRAFORM).blocks:
        for text in texts(block.body):
            for name, arguments in CALL.findall(text):
                for one in (USER, WATCHDOG) if name == "${each.key}" else (name,):
                    given[one] = set(re.findall(r"(\w+) = ", arguments))
    assert given == {name_of(template): wanted(template) for template in TEMPLATES}


def test_the_secret_of_an_access_key_goes_to_vault_and_nowhere_else():
    harmless = re.compile(r"aws_iam_access_key\.machine\[each\.key\]\.(id|create_date)\b")
    readers = {
        (block.name, argument)
        for folder in (TERRAFORM, EXAMPLE)
        for block in Configuration.of(folder).blocks
        for argument, value in block.body.items()
        if any("aws_iam_access_key" in harmless.sub("", text) for text in texts(value))
    }
    assert readers == {("resource vault_kv_secret_v2 access_key", "data_json_wo")}


def test_the_lifecycle_keeps_backups_as_long_as_the_backup_itself_says():
    (constants,) = (block for block in Configuration.of(TERRAFORM).blocks if "retention_days" in block.body)
    assert literal(constants.body["retention_days"]) == RETENTION_DAYS
