"""A host of the cron watchdog: its settings, its part of Vault, its S3 user, its bucket, and whom it alerts."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import hvac

from dev import guard
from dev.airflow_env import ROOT
from dev.provisioning.buckets import WATCHDOG, ensure_user, policy_document
from dev.provisioning.keys import ensure_kv
from dev.servers.seaweedfs import REGION, AccessKey
from tests.integration.backup_world import DAY, KEY, backup_world
from tests.integration.bucket_view import BucketView
from tests.support.mailbox import TO
from tests.support.people import People, on_call
from tests.support.servers import Bucket, TestStack
from tests.support.webhook import SECRET_PATH

PROGRAM = ROOT / "ansible" / "roles" / "postgresql_backup" / "files" / "pv-backup-watchdog"
POLICY = ROOT / "include" / "vault" / "pv-backup-receiver.hcl"
#: As cron has it on the host of the watchdog, whose clocks were put forward on that very day.
AT = f"{DAY}T04:15+02:00"
CRONS_PATH = "/usr/bin:/bin"
#: `aws` beside cron's own programs.
PATHS = {"curl": CRONS_PATH, "aws": f"{sysconfig.get_path('scripts')}:{CRONS_PATH}"}


@dataclass(frozen=True)
class Published:
    """A backup that the steps of a real run made and published."""

    bucket: Bucket
    body: bytes
    metadata: dict[str, str]
    manifest: dict[str, Any]


@cache
def published_backup(stack: TestStack) -> Published:
    """Make one, once for the stack."""
    source, journal, bucket = stack.new_source(), stack.new_journal(), stack.new_bucket()
    with backup_world(stack, source, journal, bucket) as world:
        world.back_up()
        manifest = world.bucket.manifest(KEY)
        assert manifest is not None
        return Published(bucket, world.bucket.body(KEY), world.bucket.head(KEY)["Metadata"], manifest)


class HostsVault:
    """A KV and an AppRole of one test's own in the real Vault, with the policy that production has."""

    def __init__(self, root: hvac.Client) -> None:
        self._root = root
        self._name = f"watchdog-{uuid4()}"
        self.settings = {"VAULT_ADDR": str(root.url), "VAULT_KV_MOUNT": self._name, "VAULT_APPROLE_MOUNT": self._name}
        ensure_kv(root, self._name)
        root.sys.enable_auth_method("approle", path=self._name)
        root.sys.create_or_update_policy(self._name, POLICY.read_text().replace('"kv/', f'"{self._name}/'))
        root.write_data(f"auth/{self._name}/role/host", data={"token_policies": self._name, "token_ttl": "5m"})

    def keep(self, path: str, **secret: str) -> None:
        self._root.secrets.kv.v2.create_or_update_secret(path, secret=secret, mount_point=self._name)

    def forget(self, path: str) -> None:
        self._root.secrets.kv.v2.delete_metadata_and_all_versions(path, mount_point=self._name)

    def forbid(self) -> None:
        self._root.sys.create_or_update_policy(self._name, 'path "kv/*" { capabilities = ["deny"] }')

    def draw(self) -> tuple[str, str]:
        """Role id and secret id."""
        approle = self._root.auth.approle
        role = approle.read_role_id("host", mount_point=self._name)["data"]["role_id"]
        return role, approle.generate_secret_id("host", mount_point=self._name)["data"]["secret_id"]


@dataclass
class Run:
    """How one run ended."""

    status: int
    out: str
    err: str


@dataclass
class WatchdogWorld:
    """The host.

    :ivar settings: of watchdog.conf; None leaves a line out.
    :ivar state: STATE_DIRECTORY, on tmpfs.
    :ivar key: of the S3 user `backup_watchdog`.
    :ivar secret_id: what the host logs in to Vault with.
    """

    stack: TestStack
    home: Path
    state: Path
    vault: HostsVault
    bucket: BucketView
    people: People
    key: AccessKey
    secret_id: str
    settings: dict[str, str | None] = field(default_factory=dict)

    def put_backup(self, **changes: Any) -> None:
        """Put the real backup into this test's bucket, where something may happen to it.

        :param changes: of the manifest.
        """
        published = published_backup(self.stack)
        self.bucket.put(KEY, published.body, published.metadata)
        self.bucket.put_manifest(KEY, published.manifest | changes)

    def keep_alerts(self, **changes: str) -> None:
        """What Vault knows of the ways to the people."""
        address = f"http://127.0.0.1:{self.people.webhook.port}/{SECRET_PATH}"
        self.vault.keep("pv-backup/watchdog", **{"webhook_url": address, **changes})

    def run(
        self, *options: str, at: str | None = AT, using: str | None = "curl", path: str = "", **environment: str
    ) -> Run:
        """Run it as cron does, with nothing in the environment but cron's own.

        :param path: goes before cron's.
        """
        config = self.home / "watchdog.conf"
        lines = [f"{name}={value}\n" for name, value in self.settings.items() if value is not None]
        config.write_text("".join(["# of a test\n", "\n", *lines]))
        chosen = [*(["--using", using] if using else []), *(["--at", at] if at else [])]
        process = subprocess.run(
            [PROGRAM, "--config", config, *chosen, *options],
            env={"PATH": path + PATHS[using or "curl"], "HOME": str(self.home), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Run(process.returncode, process.stdout, process.stderr)

    def finds(self, status: int, code: str, *words: str, **how: Any) -> str:
        """Run it, and see it end so and tell people exactly that, by mail and webhook both; the cause that they got."""
        before = len(self.people.webhook.received)
        run = self.run(**how)
        assert run.status == status, run.err
        assert self.people.codes[before:] == [code], run.err
        alert = self.people.webhook.received[-1]
        mail = self.people.mail.messages[-1].get_content()
        assert f"{code} {alert['cause']}. Next: {alert['next_step']}\n" in run.err
        for said in (alert["cause"], alert["next_step"]):
            assert said in mail
        for word in words:
            assert word in alert["cause"]
        return str(alert["cause"])


@contextmanager
def watchdog_world(stack: TestStack, bucket: Bucket, home: Path) -> Iterator[WatchdogWorld]:
    """A host whose bucket is empty, and whose Vault and people can be reached; it is gone at the end."""
    state = Path(tempfile.mkdtemp(prefix="pv-backup-watchdog-", dir="/dev/shm"))
    guard.watch_path(state)
    vault = HostsVault(stack.vault.client())
    key = _watchdogs_key(stack)
    vault.keep("ci/aws-backup-watchdog", access_key_id=key.access_key, secret_access_key=key.secret_key)
    role_id, secret_id = vault.draw()
    (home / "role_id").write_text(role_id + "\n")
    (home / "secret_id").write_text(secret_id)
    with on_call() as people:
        world = WatchdogWorld(stack, home, state, vault, BucketView(bucket), people, key, secret_id)
        world.settings = {
            "BUCKET": bucket.name,
            "REGION": REGION,
            "S3_ENDPOINT": stack.s3.endpoint,
            **vault.settings,
            "ROLE_ID_FILE": str(home / "role_id"),
            "SECRET_ID_FILE": str(home / "secret_id"),
            "MAIL_TO": ",".join(TO),
            "MAIL_FROM": "watchdog@example.com",
            "SMTP_URL": f"smtp://127.0.0.1:{people.mail.port}",
            "TIMEOUT_S": "60",  # of a busy machine
            "STATE_DIRECTORY": str(state),
        }
        world.keep_alerts()
        try:
            yield world
        finally:
            shutil.rmtree(state)


@cache
def _watchdogs_key(stack: TestStack) -> AccessKey:
    """A user with the rights of production's `backup_watchdog` in every test's bucket."""
    return ensure_user(stack.s3, "cron_watchdog", policy_document(WATCHDOG, bucket_pattern=stack.bucket_pattern))
