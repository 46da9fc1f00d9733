"""The servers refuse what we rely on their refusing; without that, tests of least privilege would prove nothing."""

from __future__ import annotations

import re
from pathlib import Path

import hvac.exceptions
import psutil
import psycopg
import pytest
import requests
from botocore.exceptions import ClientError

from dev.credentials import Credentials
from dev.provisioning import keys
from tests.support.servers import Bucket, JournalDatabase, SourceDatabase, TestStack

KMS = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": keys.SSE_KEY}


def _refused(call, *args, **kwargs) -> str:
    with pytest.raises(ClientError) as refusal:
        call(*args, **kwargs)
    return refusal.value.response["Error"]["Code"]


@pytest.mark.case("TC-INV-03")
class TestBackupUser:
    """``backup_user`` may write and read backups (SPEC section 9) and nothing else."""

    def test_writes_reads_and_lists_with_sse_kms(self, bucket: Bucket) -> None:
        bucket.user.put_object(Bucket=bucket.name, Key="a", Body=b"bytes", Metadata={"iv": "00"}, **KMS)

        head = bucket.user.head_object(Bucket=bucket.name, Key="a")
        assert head["ServerSideEncryption"] == "aws:kms"
        assert head["SSEKMSKeyId"] == keys.SSE_KEY
        assert head["Metadata"] == {"iv": "00"}
        assert head["VersionId"] != "null"
        assert bucket.user.get_object(Bucket=bucket.name, Key="a")["Body"].read() == b"bytes"
        assert [found["Key"] for found in bucket.user.list_objects_v2(Bucket=bucket.name)["Contents"]] == ["a"]

    def test_does_a_multipart_upload_and_aborts_another(self, bucket: Bucket) -> None:
        user, where = bucket.user, {"Bucket": bucket.name, "Key": "large"}
        upload = {**where, "UploadId": user.create_multipart_upload(**where, **KMS)["UploadId"]}
        bodies = [b"1" * 5 * 2**20, b"2"]
        parts = [
            {"PartNumber": n, "ETag": user.upload_part(**upload, PartNumber=n, Body=body)["ETag"]}
            for n, body in enumerate(bodies, start=1)
        ]
        assert len(user.list_parts(**upload)["Parts"]) == 2
        assert len(user.list_multipart_uploads(Bucket=bucket.name)["Uploads"]) == 1
        user.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*")
        assert user.get_object(**where)["Body"].read() == b"".join(bodies)
        assert user.head_object(**where)["ServerSideEncryption"] == "aws:kms"

        again = {**where, "UploadId": user.create_multipart_upload(**where, **KMS)["UploadId"]}
        user.abort_multipart_upload(**again)
        assert "Uploads" not in user.list_multipart_uploads(Bucket=bucket.name)

    def test_conditional_writes_are_honoured(self, bucket: Bucket) -> None:
        where = {"Bucket": bucket.name, "Key": "once"}
        first = bucket.user.put_object(**where, Body=b"1", IfNoneMatch="*", **KMS)["ETag"]
        assert _refused(bucket.user.put_object, **where, Body=b"2", IfNoneMatch="*") == "PreconditionFailed"
        bucket.user.put_object(**where, Body=b"3", IfMatch=first, **KMS)
        assert _refused(bucket.user.put_object, **where, Body=b"4", IfMatch=first) == "PreconditionFailed"

    def test_deletes_nothing(self, bucket: Bucket) -> None:
        version = bucket.user.put_object(Bucket=bucket.name, Key="a", Body=b"x", **KMS)["VersionId"]
        assert _refused(bucket.user.delete_object, Bucket=bucket.name, Key="a") == "AccessDenied"
        assert _refused(bucket.user.delete_object, Bucket=bucket.name, Key="a", VersionId=version) == "AccessDenied"
        many = bucket.user.delete_objects(Bucket=bucket.name, Delete={"Objects": [{"Key": "a"}]})
        assert [error["Code"] for error in many["Errors"]] == ["AccessDenied"]
        assert _refused(bucket.user.delete_bucket, Bucket=bucket.name) == "AccessDenied"
        assert bucket.admin.head_object(Bucket=bucket.name, Key="a")["VersionId"] == version

    def test_changes_no_protection_of_the_bucket(self, bucket: Bucket) -> None:
        suspended = {"Status": "Suspended"}
        refusal = _refused(bucket.user.put_bucket_versioning, Bucket=bucket.name, VersioningConfiguration=suspended)
        assert refusal == "AccessDenied"
        assert _refused(bucket.user.put_bucket_policy, Bucket=bucket.name, Policy="{}") == "AccessDenied"
        assert bucket.admin.get_bucket_versioning(Bucket=bucket.name)["Status"] == "Enabled"

    def test_sees_no_other_bucket(self, stack: TestStack, bucket: Bucket) -> None:
        other = "not-the-backups"
        bucket.admin.create_bucket(Bucket=other)
        try:
            assert _refused(bucket.user.put_object, Bucket=other, Key="a", Body=b"x") == "AccessDenied"
            assert _refused(bucket.user.get_object, Bucket=other, Key="a") == "AccessDenied"
            assert _refused(bucket.user.list_objects_v2, Bucket=other) == "AccessDenied"
        finally:
            bucket.admin.delete_bucket(Bucket=other)

    def test_may_not_read_old_versions(self, bucket: Bucket) -> None:
        """GET and HEAD of the current version need s3:GetObject alone; a version by its id needs another right."""
        old = bucket.user.put_object(Bucket=bucket.name, Key="a", Body=b"x", **KMS)["VersionId"]
        assert _refused(bucket.user.get_object, Bucket=bucket.name, Key="a", VersionId=old) == "AccessDenied"

    def test_an_overwritten_object_is_still_there(self, bucket: Bucket) -> None:
        for body in (b"1", b"2"):
            bucket.user.put_object(Bucket=bucket.name, Key="a", Body=body, **KMS)
        assert len(bucket.admin.list_object_versions(Bucket=bucket.name, Prefix="a")["Versions"]) == 2


@pytest.mark.case("TC-INV-03")
class TestBackupToken:
    """The backup's Vault token wraps and unwraps with one key; it cannot see, rotate or remove any."""

    def test_wraps_and_unwraps(self, stack: TestStack) -> None:
        transit = stack.vault.client(stack.backup_token).secrets.transit
        wrapped = transit.encrypt_data(name=keys.TRANSIT_KEY, plaintext="AAAA")["data"]["ciphertext"]
        assert re.match("vault:v[1-9]", wrapped)
        assert transit.decrypt_data(name=keys.TRANSIT_KEY, ciphertext=wrapped)["data"]["plaintext"] == "AAAA"

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("read", f"transit/keys/{keys.TRANSIT_KEY}"),
            ("delete", f"transit/keys/{keys.TRANSIT_KEY}"),
            ("write", f"transit/keys/{keys.TRANSIT_KEY}/rotate"),
            ("write", f"transit/keys/{keys.TRANSIT_KEY}/config"),
            ("read", f"transit/export/encryption-key/{keys.TRANSIT_KEY}"),
            ("read", f"transit/backup/{keys.TRANSIT_KEY}"),
            ("list", "transit/keys"),
            ("write", f"transit/encrypt/{keys.SSE_KEY}"),
            ("write", f"transit/decrypt/{keys.SSE_KEY}"),
            ("read", "sys/mounts"),
        ],
    )
    def test_may_nothing_else(self, stack: TestStack, method: str, path: str) -> None:
        client = stack.vault.client(stack.backup_token)
        with pytest.raises(hvac.exceptions.Forbidden):
            getattr(client, method)(path)

    def test_one_that_an_older_stack_made_with_more_rights_is_made_anew(self, stack: TestStack, tmp_path: Path) -> None:
        root, credentials = stack.vault.client(), Credentials(tmp_path)
        token = credentials.get("vault_backup_token")
        root.auth.token.create(id=token, policies=[keys.TRANSIT_KEY], no_parent=True)
        assert root.auth.token.lookup(token)["data"]["policies"] == ["default", keys.TRANSIT_KEY]
        keys.ensure_keys_and_tokens(stack.vault, credentials)
        assert root.auth.token.lookup(token)["data"]["policies"] == [keys.TRANSIT_KEY]

    def test_the_s3_servers_token_does_not_open_backups(self, stack: TestStack) -> None:
        wrapped = stack.vault.client(stack.backup_token).secrets.transit.encrypt_data(
            name=keys.TRANSIT_KEY, plaintext="AAAA"
        )
        client = stack.vault.client(stack.credentials.get("vault_sse_token"))
        with pytest.raises(hvac.exceptions.Forbidden):
            client.secrets.transit.decrypt_data(name=keys.TRANSIT_KEY, ciphertext=wrapped["data"]["ciphertext"])

    def test_the_key_is_of_the_one_allowed_kind_and_not_exportable(self, stack: TestStack) -> None:
        key = stack.vault.client().secrets.transit.read_key(name=keys.TRANSIT_KEY)["data"]
        assert (key["type"], key["exportable"], key["deletion_allowed"]) == ("aes256-gcm96", False, False)


@pytest.mark.case("TC-ERR-02", "TC-ERR-03", "TC-ERR-06")
class TestControls:
    """Failures can be made for real, and what was stored survives them."""

    def test_a_sealed_vault_refuses_and_opens_again(self, stack: TestStack) -> None:
        transit = stack.vault.client(stack.backup_token).secrets.transit
        wrapped = transit.encrypt_data(name=keys.TRANSIT_KEY, plaintext="AAAA")["data"]["ciphertext"]
        stack.vault.seal()
        with pytest.raises(hvac.exceptions.VaultDown):
            transit.encrypt_data(name=keys.TRANSIT_KEY, plaintext="AAAA")
        stack.vault.unseal()
        assert transit.decrypt_data(name=keys.TRANSIT_KEY, ciphertext=wrapped)["data"]["plaintext"] == "AAAA"

    def test_a_killed_s3_server_comes_back_with_its_objects_and_users(self, stack: TestStack, bucket: Bucket) -> None:
        bucket.user.put_object(Bucket=bucket.name, Key="a", Body=b"x", **KMS)
        stack.s3.kill()
        with pytest.raises(requests.ConnectionError):
            requests.get(stack.s3.endpoint, timeout=2)
        stack.s3.start()
        assert bucket.user.get_object(Bucket=bucket.name, Key="a")["Body"].read() == b"x"
        bucket.user.put_object(Bucket=bucket.name, Key="b", Body=b"y", **KMS)

    def test_a_stopped_database_comes_back_with_its_rows(self, stack: TestStack, source_db: SourceDatabase) -> None:
        with psycopg.connect(source_db.superuser_dsn) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        stack.postgres.stop()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(source_db.superuser_dsn)
        stack.postgres.start()
        with psycopg.connect(source_db.dump_dsn) as connection:
            assert connection.execute("SELECT one FROM kept").fetchall() == [(1,)]


@pytest.mark.case("TC-ERR-08")
def test_the_servers_listen_on_the_ports_that_were_drawn_for_them_alone(stack: TestStack) -> None:
    """On another, one would sooner or later meet a server of the tests beside us that is down for a moment."""
    listening = {
        (found.pid, found.laddr.port) for found in psutil.net_connections("tcp") if found.status == psutil.CONN_LISTEN
    }
    servers = {pid for pid, port in listening if port in stack.ports.values()}
    assert {port for pid, port in listening if pid in servers} == set(stack.ports.values())


@pytest.mark.case("TC-INV-05")
def test_the_journals_roles_are_told_apart(journal_db: JournalDatabase) -> None:
    """Only then do tests of what the service may not do say something."""
    roles = [
        psycopg.connect(dsn)
        .execute("SELECT current_user, usesuper FROM pg_user WHERE usename = current_user")
        .fetchone()
        for dsn in (journal_db.superuser_dsn, journal_db.owner_dsn, journal_db.service_dsn)
    ]
    assert roles == [("postgres", True), ("pv_backup_owner", False), ("pv_backup_service", False)]


@pytest.mark.case("TC-NOM-01")
def test_what_a_test_stopped_is_up_for_the_next(stack: TestStack) -> None:
    stack.vault.seal()
    stack.s3.kill()
    stack.restore()
    assert stack.s3.answers()
    assert stack.vault.client().sys.is_sealed() is False
