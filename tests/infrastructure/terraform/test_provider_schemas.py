"""Terraform's files against the schemas of the providers, and each kind of mistake that this must find."""

from __future__ import annotations

import re

import pytest

from dev.provider_schemas import excerpt
from tests.infrastructure.terraform.configuration import EXAMPLE, Configuration, literal, plain
from tests.infrastructure.terraform.validation import findings, schemas

pytestmark = pytest.mark.case("TC-INF-01")


def module_findings(*changed: str) -> list[str]:
    return findings(Configuration.of(excerpt.TERRAFORM, changed=changed or ("", "")))


def example_findings(*changed: str) -> list[str]:
    module = Configuration.of(excerpt.TERRAFORM)
    return findings(Configuration.of(EXAMPLE, changed=changed or ("", "")), modules={"pv_backup": module})


def test_nothing_is_wrong():
    assert module_findings() == []
    assert example_findings() == []


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("enable_key_rotation  ", "enable_key_rotating  ", "aws_kms_key backup: no argument enable_key_rotating"),
        ("    filter {}", "    filters {}", "rule: no block filters exists"),
        ("days = local.retention_days", "weeks = 4", "rule: expiration: no argument weeks exists"),
        (
            "noncurrent_days = noncurrent_",
            "days = noncurrent_",
            "version_expiration: noncurrent_days is required",
        ),
        ("    default_retention {", "    retention {", "rule: default_retention is required"),
        ("  target_key_id = aws_kms_key.backup.key_id", "", "aws_kms_alias backup: target_key_id is required"),
        ("bucket_key_enabled = true", 'bucket_key_enabled = "yes"', "bucket_key_enabled is a boolean"),
        ("create_before_destroy = true", "create_before = true", "no argument create_before exists in lifecycle"),
        ("bucket = var.bucket_name", "bucket = var.bucket", "var.bucket is not declared"),
        ("days = local.retention_days", "days = local.days", "local.days is not declared"),
        ("master_key_id = aws_kms_key.backup", "master_key_id = aws_kms_key.s3", "aws_kms_key.s3 is not declared"),
        ("key_id = aws_kms_key.backup.arn", "key_id = aws_kms_key.backup.urn", "aws_kms_key exports no urn"),
        ("current.partition}", "current.part}", "aws_partition exports no part"),
        ('aws_iam_user.machine["backup_user"].arn', "aws_iam_user.machine.arn", "aws_iam_user.machine is several"),
        ("[aws_s3_bucket_public_access_block.", "[aws_s3_bucket_acl.", "aws_s3_bucket_acl.backup is not declared"),
        ('resource "aws_s3_bucket_policy"', 'resource "aws_s3_policy"', "aws_s3_policy backup: no schema is kept"),
    ],
)
def test_a_mistake_is_found(old: str, new: str, finding: str):
    found = module_findings(old, new)
    assert any(finding in one for one in found), found


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("bucket_name        = var", "bucket_called      = var", "the module has no variable bucket_called"),
        ("bucket_name        = var", "bucket_called      = var", "bucket_name is required"),
        ("module.pv_backup.kms_key_arn", "module.pv_backup.kms_key", "module.pv_backup.kms_key is not declared"),
        ("_bucket_lifecycle_configuration.", "_bucket_lifecycle.", "aws_s3_bucket_lifecycle.backup is not declared"),
        ("_bucket_versioning.backup[0]", "_bucket_versioning.backup", "_versioning.backup is several; it needs a key"),
        ("access_block.backup", "access_block.backup[0]", "access_block.backup[0] is one; it has no key"),
        ("? toset([]) : local.adopted", "? toset([]) : local.adapted", "local.adapted is not declared"),
        ("[var.account_id]", "[var.account]", "var.account is not declared"),
    ],
)
def test_a_mistake_in_the_example_is_found(old: str, new: str, finding: str):
    found = example_findings(old, new)
    assert any(finding in one for one in found), found


def test_what_people_are_told_to_type_exists():
    module, example = Configuration.of(excerpt.TERRAFORM), Configuration.of(EXAMPLE)
    told = re.findall(r"module\.pv_backup\.(\w+)\.(\w+)", (excerpt.TERRAFORM / "README.md").read_text())
    assert told
    assert [address for address in told if address not in module.of_kind("resource")] == []

    offered = re.findall(r"^(?:# )?(\w+) += ", (EXAMPLE / "terraform.tfvars.example").read_text(), re.MULTILINE)
    variables = example.of_kind("variable")
    required = {name for (name,), block in variables.items() if "default" not in block.body}
    assert required <= set(offered) <= example.names("variable")


def test_the_oldest_provider_that_is_let_in_is_the_one_that_was_held_against():
    described = {one for package in schemas()["packages"] for one in package["describes"]}
    for folder in (excerpt.TERRAFORM, EXAMPLE):
        (terraform,) = Configuration.of(folder).of_kind("terraform").values()
        (providers,) = terraform.body["required_providers"]
        for wanted in plain(providers).values():
            oldest = re.match(r">= ([\d.]+), < \d+\.0$", literal(wanted["version"]))
            assert oldest, f"{wanted['version']}: a lower bound, and the next major version as the upper one"
            assert f"{literal(wanted['source'])} {oldest[1]}.0" in described


@pytest.mark.soak
def test_the_excerpt_is_what_the_published_bindings_say():
    assert excerpt.EXCERPT.read_text() == excerpt.as_text(excerpt.generate())
