"""terraform/README.md: the AWS commands that people are told to type exist, and what they make is never committed."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.model import Shape, StructureShape
from botocore.validate import ParamValidator

from dev.airflow_env import ROOT
from dev.provider_schemas.excerpt import TERRAFORM

pytestmark = pytest.mark.case("TC-INF-01")

PAGE = (TERRAFORM / "README.md").read_text()
ROLE = (ROOT / "ansible" / "roles" / "postgresql_backup" / "README.md").read_text()
# Of the AWS CLI itself, not of the service.
GLOBAL = {"query", "output"}
# The CLI's own names of services.
SERVICES = {"s3api": "s3"}
TYPED = re.compile(r"(?:^    |`|\$\()(aws [a-z0-9]+ [a-z-]+(?:[^`)\n\\]|\\\n)*)", re.MULTILINE)
COMMANDS = [shlex.split(found.replace("\\\n", ""), comments=True) for found in TYPED.findall(PAGE)]


def value(given: str, shape: Shape) -> Any:
    """What the AWS CLI makes of an option's text: JSON, or its shorthand `Name=value,Name=value`."""
    if shape.type_name == "boolean":
        return {"true": True, "false": False}[given]
    if not isinstance(shape, StructureShape):
        return given
    if given.startswith("{"):
        return json.loads(given)
    pairs = dict(pair.split("=", 1) for pair in given.split(","))
    return {name: value(text, shape.members[name]) if name in shape.members else text for name, text in pairs.items()}


def complaints(command: list[str]) -> str:
    """What the AWS CLI would say before it sends anything."""
    _, service, operation, *rest = command
    model = botocore.session.get_session().get_service_model(SERVICES.get(service, service))
    names = {botocore.xform_name(name, "-"): name for name in model.operation_names}
    if operation not in names:
        return f"{service} has no {operation}"
    shape = model.operation_model(names[operation]).input_shape
    assert isinstance(shape, StructureShape)
    members = {botocore.xform_name(name, "-"): name for name in shape.members}
    options = {name.removeprefix("--"): text for name, text in zip(rest[::2], rest[1::2], strict=True)}
    if unknown := set(options) - set(members) - GLOBAL:
        return f"{operation} has no {unknown}"
    given = {members[name]: text for name, text in options.items() if name in members}
    parameters = {name: value(text, shape.members[name]) for name, text in given.items()}
    return str(ParamValidator().validate(parameters, shape).generate_report())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[2])
def test_what_aws_is_told_exists(command: list[str]):
    assert complaints(command) == ""


def test_the_bucket_of_the_state_is_made_with_all_that_is_said_of_it():
    made = [command[2] for command in COMMANDS if "$STATE" in command]
    assert made == [
        "create-bucket",
        "put-public-access-block",
        "put-bucket-versioning",
        "put-bucket-encryption",
    ]


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("aws s3api make-bucket --bucket b", "no make-bucket"),
        ("aws s3api create-bucket --name b", "no {'name'}"),
        ("aws s3api put-bucket-versioning --bucket b", "VersioningConfiguration"),
        ("aws s3api put-bucket-versioning --bucket b --versioning-configuration State=Enabled", "State"),
        ('aws s3api put-bucket-encryption --bucket b --server-side-encryption-configuration {"Rule":[]}', "Rules"),
    ],
)
def test_a_mistake_would_be_seen(command: str, complaint: str):
    assert complaint in complaints(command.split(" "))


def test_what_a_site_fills_in_or_makes_is_never_committed(tmp_path: Path):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    copies = re.findall(r"^    .*?\bcp (?:-r )?(\S+) (\S+)", f"{PAGE}\n{ROLE}", re.MULTILINE)
    (plan,) = set(re.findall(r"-out=(\S+)", PAGE))
    secret = {copy for _, copy in copies} | {plan, f"terraform/{plan}", "terraform/examples/complete/terraform.tfvars"}
    secret |= {"terraform.tfstate", "terraform.tfstate.1763884800.backup", "terraform/.terraform/terraform.tfstate"}
    assert {"production", "terraform.tfvars", "backend.hcl", "inventory.yml"} <= secret
    (tmp_path / "production").mkdir()

    shared = {original for original, _ in copies} | {
        "terraform/.terraform.lock.hcl",
        "terraform/policies/terraform.hcl",
    }
    ask = ["git", "-C", tmp_path, "check-ignore", *sorted(secret | shared)]
    assert set(subprocess.run(ask, capture_output=True, text=True, check=False).stdout.split()) == secret
