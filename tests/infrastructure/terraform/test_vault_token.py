"""The Vault token that terraform/README.md gives to whoever applies: enough for what the provider asks, and no more.

The provider itself can't be had on every machine, so its requests are made here in its order, to a real OpenBao.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from uuid import uuid4

import hvac
import pytest
from hvac.exceptions import Forbidden, InvalidPath

from dev.provider_schemas.excerpt import TERRAFORM
from dev.provisioning.keys import ensure_kv
from dev.servers.openbao import BINARY
from tests.infrastructure.terraform.configuration import Configuration, literal, plain
from tests.support.pages import paste
from tests.support.servers import TestStack

pytestmark = pytest.mark.case("TC-INF-01", "TC-INF-02")

POLICY = TERRAFORM / "policies" / "terraform.hcl"
PAGE = (TERRAFORM / "README.md").read_text()
SECRET = "ci/aws-backup"
BLOCK = re.compile(r'path "(\S+)" \{\s+capabilities = \[(.*?)\]')
RIGHTS = [(path, right) for path, rights in BLOCK.findall(POLICY.read_text()) for right in re.findall(r"\w+", rights)]


class Provider:
    """What version 5.6 asks of Vault: its `setClient`, and then `kvSecretV2Write`, `…Read` and `…Delete`."""

    def __init__(self, client: Callable[[str], hvac.Client], token: str) -> None:
        given = client(token)
        given.auth.token.lookup_self()
        made = given.auth.token.create(ttl="1200s", explicit_max_ttl="1200s", renewable=False)
        self.kv = client(made["auth"]["client_token"]).secrets.kv.v2

    def write(self, path: str) -> None:
        self.kv.create_or_update_secret(path, secret={"access_key_id": str(uuid4())}, mount_point="kv")
        assert self.is_there(path)

    def is_there(self, path: str) -> bool:
        """Whether it stays in the state; what doesn't is written by the next apply."""
        try:
            found = self.kv.read_secret_version(path, mount_point="kv", raise_on_deleted_version=True)
        except InvalidPath as missing:
            found = missing.json
        if not (found or {}).get("data"):
            return False
        if "custom_metadata" in found["data"]["metadata"]:
            self.kv.read_secret_metadata(path, mount_point="kv")
        return True

    def replace(self, path: str) -> None:
        self.kv.delete_latest_version_of_secret(path, mount_point="kv")
        self.write(path)


@pytest.fixture(scope="module")
def client(stack: TestStack) -> Callable[[str], hvac.Client]:
    """Clients of a namespace that has the README's mount and nothing else."""
    namespace = f"terraform-{uuid4()}"
    stack.vault.client().write_data(f"sys/namespaces/{namespace}")

    def of(token: str) -> hvac.Client:
        return hvac.Client(url=stack.vault.address, namespace=namespace, token=token)

    root = of(stack.vault.root_token)
    ensure_kv(root, "kv")
    return of


@pytest.fixture
def root(stack: TestStack, client) -> hvac.Client:
    """Of a Vault to which nothing was applied yet."""
    root = client(stack.vault.root_token)
    for path in secrets():
        root.secrets.kv.v2.delete_metadata_and_all_versions(path, mount_point="kv")
    return root


@pytest.fixture
def token(stack: TestStack, root: hvac.Client) -> str:
    """Given as the README says, by OpenBao's `vault`."""
    lines = re.findall(r"^    vault ((?:policy write|token create) .*)$", PAGE, re.MULTILINE)
    shell = {
        "PATH": f"{BINARY.parent}:{os.environ['PATH']}",
        "VAULT_ADDR": stack.vault.address,
        "VAULT_NAMESPACE": root.adapter.namespace,
        "VAULT_TOKEN": root.token,
    }
    return paste("\n".join(f"bao {line}" for line in lines), shell).split()[-1]


def lives(client: Callable[[str], hvac.Client], token: str) -> None:
    """The first apply, a rotation, and `-replace`, of each access key."""
    provider = Provider(client, token)
    for path in secrets():
        provider.write(path)
        provider.write(path)
        provider.replace(path)


def secrets() -> list[str]:
    """Where the module puts the access keys."""
    (users,) = (
        block.body["machine_users"]
        for block in Configuration.of(TERRAFORM).blocks
        if block.kind == "locals" and "machine_users" in block.body
    )
    return [literal(path) for path in plain(users).values()]


def test_it_applies_rotates_and_replaces(client, token: str):
    lives(client, token)


@pytest.mark.parametrize(("path", "right"), RIGHTS)
def test_without_one_of_its_rights_it_does_not(client, root: hvac.Client, path: str, right: str):
    needed: dict[str, list[str]] = {}
    for where, one in RIGHTS:
        needed.setdefault(where, []).extend([] if (where, one) == (path, right) else [one])
    root.sys.create_or_update_policy(
        "less", {"path": {at: {"capabilities": rest} for at, rest in needed.items() if rest}}
    )
    less = root.auth.token.create(policies=["less"], no_default_policy=True)["auth"]["client_token"]

    with pytest.raises(Forbidden):
        lives(client, less)


def test_it_reaches_nothing_else(client, token: str):
    kv = client(token).secrets.kv.v2
    for call in (
        lambda: kv.create_or_update_secret("pv-backup/receivewal", secret={"conninfo": ""}, mount_point="kv"),
        lambda: kv.read_secret_version("pv-backup/receivewal", mount_point="kv", raise_on_deleted_version=True),
        lambda: kv.delete_metadata_and_all_versions(SECRET, mount_point="kv"),
        lambda: kv.destroy_secret_versions(SECRET, [1], mount_point="kv"),
        lambda: kv.list_secrets("ci", mount_point="kv"),
        lambda: client(token).sys.list_policies(),
    ):
        with pytest.raises(Forbidden):
            call()


def test_a_secret_is_gone_for_terraform_only_with_its_metadata(client, root: hvac.Client, token: str):
    provider, kv = Provider(client, token), root.secrets.kv.v2
    for soft in (
        lambda: kv.delete_latest_version_of_secret(SECRET, mount_point="kv"),
        lambda: kv.destroy_secret_versions(SECRET, [2], mount_point="kv"),
    ):
        provider.write(SECRET)
        soft()
        assert provider.is_there(SECRET), "so README.md sends people to -replace"
        provider.replace(SECRET)

    kv.delete_metadata_and_all_versions(SECRET, mount_point="kv")
    assert not provider.is_there(SECRET)
    provider.write(SECRET)
