"""A bad value of a variable is refused by Terraform before anything is made, in words that say what to do."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from dev.provider_schemas.excerpt import TERRAFORM
from tests.infrastructure.terraform.configuration import EXAMPLE, Configuration
from tests.infrastructure.terraform.terraform_program import needs_terraform, terraform

pytestmark = pytest.mark.case("TC-INF-01")

LOCK = {"mode": "GOVERNANCE", "days": 14}
GOOD: list[dict[str, Any]] = [
    {},
    {"bucket_name": "a" * 63, "kms_deletion_window_days": 14, "vault_kv_mount": "secrets/kv", "noncurrent_days": 1},
    {"versioning_enabled": True, "object_lock": LOCK},
    {"versioning_enabled": True, "object_lock": {"mode": "COMPLIANCE", "days": 30}},
]
BAD: list[tuple[dict[str, Any], str]] = [
    ({"bucket_name": "Backups"}, "bucket_name"),
    ({"bucket_name": "pv.backup"}, "bucket_name"),
    ({"bucket_name": "ab"}, "bucket_name"),
    ({"bucket_name": "a" * 64}, "bucket_name"),
    ({"kms_deletion_window_days": 7}, "kms_deletion_window_days"),
    ({"kms_deletion_window_days": 31}, "kms_deletion_window_days"),
    ({"vault_kv_mount": "kv/"}, "vault_kv_mount"),
    ({"vault_kv_mount": ""}, "vault_kv_mount"),
    ({"noncurrent_days": 0}, "noncurrent_days"),
    ({"noncurrent_days": 1.5}, "noncurrent_days"),
    ({"object_lock": LOCK}, "object_lock"),
    ({"versioning_enabled": True, "object_lock": LOCK | {"mode": "governance"}}, "object_lock.mode"),
    ({"versioning_enabled": True, "object_lock": LOCK | {"days": 0}}, "object_lock.days"),
    ({"versioning_enabled": True, "object_lock": LOCK | {"days": 31}}, "object_lock.days"),
    ({"versioning_enabled": True, "object_lock": LOCK | {"days": 1.5}}, "object_lock.days"),
]
REMEDY = re.compile(r"\b(Give|Set) ")


def refusals(folder: Path, values: dict[str, Any], *, of: Path = TERRAFORM) -> list[str]:
    """The messages of a plan that has the variables and nothing else, so that no provider is needed."""
    shutil.copy(of / "variables.tf", folder)
    (folder / "terraform.tfvars.json").write_text(json.dumps({"bucket_name": "some-bucket"} | values))
    answer = terraform("plan", "-input=false", "-json", folder=folder)
    messages = [json.loads(line) for line in answer.stdout.splitlines()]
    return [one["diagnostic"]["detail"] for one in messages if one["@level"] == "error"]


@needs_terraform
@pytest.mark.parametrize("values", GOOD, ids=str)
def test_good_values_are_taken(tmp_path: Path, values: dict[str, Any]):
    assert refusals(tmp_path, values) == []


@needs_terraform
@pytest.mark.parametrize(("values", "field"), BAD, ids=str)
def test_a_bad_value_is_refused_with_its_field_and_a_remedy(tmp_path: Path, values: dict[str, Any], field: str):
    (message,) = refusals(tmp_path, values)
    assert message.startswith(f"{field}: ")
    assert REMEDY.search(message)


@needs_terraform
def test_the_example_refuses_what_is_no_account(tmp_path: Path):
    assert refusals(tmp_path, {"account_id": "012345678901"}, of=EXAMPLE) == []
    (message,) = refusals(tmp_path, {"account_id": "12345"}, of=EXAMPLE)
    assert message.startswith("account_id: ")
    assert "get-caller-identity" in message


def test_every_variable_says_what_it_is_for():
    for folder in (TERRAFORM, EXAMPLE):
        described = {name: block.body for (name,), block in Configuration.of(folder).of_kind("variable").items()}
        assert [name for name, body in described.items() if len(body.get("description", "")) < 20] == []
