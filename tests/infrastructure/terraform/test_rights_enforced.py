"""The IAM policies of terraform/policies, held by users of the real S3 server: enough for our flows, and no more."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from string import Template
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dev.provisioning.buckets import KMS_KEY_ARN, POLICIES, USER, WATCHDOG
from dev.provisioning.keys import SSE_KEY
from pv_backup.services.errors import PvBackupError
from tests.infrastructure.terraform.limited_user import Flows, new_client, policy
from tests.integration.wal_world import WalWorld, wal_world
from tests.support.clusters import ClusterTemplate, SourceCluster
from tests.support.servers import Bucket, TestStack

pytestmark = pytest.mark.case("TC-INF-01")

KMS = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": SSE_KEY}
OTHER_ENCRYPTIONS = {
    "S3's own key": {"ServerSideEncryption": "AES256"},
    "another KMS key": {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "pv-backup-of-somebody-else"},
    "a key that the caller brings": {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": b"k" * 32},
}


@pytest.fixture(scope="module")
def cluster(cluster_template: ClusterTemplate) -> Iterator[SourceCluster]:
    """One cluster for all, whose dump makes three parts of 5 MiB and more; nobody changes it."""
    cluster = cluster_template.copied()
    cluster.write(17)
    yield cluster
    cluster.discard()


@pytest.fixture
def world(stack, cluster, journal_db, bucket) -> Iterator[WalWorld]:
    with wal_world(stack, cluster, journal_db, bucket, part_size_mb=5) as world:
        yield world


@pytest.fixture
def backup_user(stack: TestStack, bucket: Bucket) -> Any:
    return new_client(stack, policy(USER, bucket=bucket.name))


def outcome(call: Callable[[], Any]) -> str:
    """S3's code if it does not succeed."""
    try:
        call()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return "done"


def refusal(call: Callable[..., Any], **arguments: Any) -> str:
    """S3's code of a call that must not succeed."""
    code = outcome(partial(call, **arguments))
    assert code != "done", f"{call.__name__} {arguments} was not refused"
    return code


def bucket_policy(bucket: str, *sids: str) -> str:
    """The statements of these names out of the bucket's policy."""
    document = json.loads(
        Template((POLICIES / "bucket.json.tftpl").read_text()).substitute(
            bucket_arn=f"arn:aws:s3:::{bucket}",
            kms_key_arn=KMS_KEY_ARN,
            kms_key_id=SSE_KEY,
            kms_alias_arn=KMS_KEY_ARN.replace("key/", "alias/"),
            kms_alias=f"alias/{SSE_KEY}",
        )
    )
    document["Statement"] = [one for one in document["Statement"] if one["Sid"] in sids]
    assert len(document["Statement"]) == len(sids)
    return json.dumps(document)


@pytest.fixture
def no_other_encryption(bucket: Bucket) -> None:
    """The bucket refuses what it must, but for HTTPS, which the stack's S3 server does not speak."""
    refusals = bucket_policy(bucket.name, "NoOtherEncryption", "NoOtherKey", "NoKeyOfTheCallersOwn")
    bucket.admin.put_bucket_policy(Bucket=bucket.name, Policy=refusals)


@pytest.mark.case("TC-NOM-01", "TC-NOM-02", "TC-NOM-03")
def test_every_flow_passes_with_exactly_these_rights(
    world: WalWorld, stack: TestStack, backup_user: Any, no_other_encryption: None
):
    flows = Flows.of(world, backup_user)
    for flow in (
        flows.daily_dump,
        flows.base_backup,
        flows.wal_shipping,
        flows.reconciliation,
        flows.listing,
        flows.restoring,
        flows.writing_once,
    ):
        flow()
    assert flows.parts_of_the_dump() >= 3

    # When Vault is lost with all access keys in it, an administrator draws another one, of the user that only reads.
    rescue = Flows.of(world, new_client(stack, policy(WATCHDOG, bucket=world.bucket.name)))
    rescue.listing()
    rescue.restoring()


@pytest.fixture
def locked(stack: TestStack) -> Bucket:
    """A bucket whose versions nobody can delete for a day, as var.object_lock makes one."""
    name, admin = f"pv-backup-test-{uuid.uuid4().hex[:12]}", stack.s3.client()
    admin.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    retention = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    lock = {"ObjectLockEnabled": "Enabled", "Rule": retention}
    admin.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=lock)
    return Bucket(name=name, admin=admin, user=None)


def test_a_locked_bucket_takes_the_same_rights_and_keeps_what_it_took(stack, cluster, journal_db, locked: Bucket):
    """With checksums, as README.md says: AWS takes no upload without one there, which this server does not mind."""
    client = new_client(stack, policy(USER, bucket=locked.name), request_checksum_calculation="when_supported")
    unchecked: list[str] = []

    def look(request: Any, **_: Any) -> None:
        if request.method == "PUT" and not any(name.lower().startswith("x-amz-checksum-") for name in request.headers):
            unchecked.append(request.url)

    client.meta.events.register("before-send.s3", look)
    with wal_world(stack, cluster, journal_db, locked, part_size_mb=5) as world:
        flows = Flows.of(world, client)
        for flow in (flows.daily_dump, flows.wal_shipping, flows.reconciliation):
            flow()
        assert flows.parts_of_the_dump() >= 3

    assert unchecked == []
    versions = locked.admin.list_object_versions(Bucket=locked.name)["Versions"]
    assert len(versions) >= 3
    for version in versions:
        which = {"Key": version["Key"], "VersionId": version["VersionId"]}
        assert refusal(locked.admin.delete_object, Bucket=locked.name, **which) == "AccessDenied"


@pytest.mark.parametrize(
    ("action", "flow", "code", "says"),
    [
        ("s3:PutObject", Flows.wal_shipping, "ERR-47-03", "put_object was refused: AccessDenied"),
        ("s3:PutObject", Flows.daily_dump, "ERR-47-03", "create_multipart_upload was refused: AccessDenied"),
        ("s3:GetObject", Flows.daily_dump, "CONFIGURATION", "S3 refuses: AccessDenied"),
        ("s3:ListBucket", Flows.listing, "CONFIGURATION", "S3 refuses: AccessDenied"),
        ("s3:ListBucketMultipartUploads", Flows.reconciliation, "CONFIGURATION", "S3 refuses: AccessDenied"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_without_one_right_a_flow_says_what_was_refused(
    world: WalWorld, stack: TestStack, action: str, flow: Callable[[Flows], None], code: str, says: str
):
    everything_else = policy(USER, bucket=world.bucket.name, without=action)
    with pytest.raises(PvBackupError) as failure:
        flow(Flows.of(world, new_client(stack, everything_else)))
    assert failure.value.code == code
    assert says in failure.value.what
    assert "policy" in failure.value.remedy


def test_the_backup_user_removes_and_loosens_nothing(bucket: Bucket, backup_user: Any):
    here = {"Bucket": bucket.name}
    version = backup_user.put_object(**here, Key="a", Body=b"x", **KMS)["VersionId"]
    expire = {"ID": "soon", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}
    aes = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    anybody = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{bucket.name}/*"}
    lock = {"Mode": "GOVERNANCE", "RetainUntilDate": "2000-01-01T00:00:00Z"}
    forbidden: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (backup_user.delete_object, {"Key": "a"}),
        (backup_user.delete_object, {"Key": "a", "VersionId": version}),
        (backup_user.delete_bucket, {}),
        (backup_user.put_bucket_versioning, {"VersioningConfiguration": {"Status": "Suspended"}}),
        (backup_user.put_bucket_lifecycle_configuration, {"LifecycleConfiguration": {"Rules": [expire]}}),
        (backup_user.delete_bucket_lifecycle, {}),
        (backup_user.put_bucket_encryption, {"ServerSideEncryptionConfiguration": {"Rules": [aes]}}),
        (backup_user.delete_bucket_encryption, {}),
        (backup_user.put_bucket_policy, {"Policy": json.dumps({"Version": "2012-10-17", "Statement": [anybody]})}),
        (backup_user.delete_bucket_policy, {}),
        (backup_user.put_public_access_block, {"PublicAccessBlockConfiguration": {"BlockPublicAcls": False}}),
        (backup_user.put_object_lock_configuration, {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}}),
        (backup_user.put_object_retention, {"Key": "a", "Retention": lock}),
        (backup_user.put_bucket_acl, {"ACL": "public-read"}),
        (backup_user.put_object_acl, {"Key": "a", "ACL": "public-read"}),
        (backup_user.put_object_tagging, {"Key": "a", "Tagging": {"TagSet": [{"Key": "kept", "Value": "no"}]}}),
        (backup_user.get_object, {"Key": "a", "VersionId": version}),
        (backup_user.list_object_versions, {}),
    ]
    refusals = {f"{call.__name__} {arguments}": refusal(call, **here, **arguments) for call, arguments in forbidden}
    many = backup_user.delete_objects(**here, Delete={"Objects": [{"Key": "a"}]})

    assert {name: code for name, code in refusals.items() if code != "AccessDenied"} == {}
    assert [error["Code"] for error in many["Errors"]] == ["AccessDenied"]
    assert bucket.admin.head_object(**here, Key="a")["VersionId"] == version
    assert bucket.admin.get_bucket_versioning(**here)["Status"] == "Enabled"
    assert refusal(bucket.admin.get_bucket_policy, **here) == "NoSuchBucketPolicy"
    assert refusal(bucket.admin.get_bucket_lifecycle_configuration, **here) == "NoSuchLifecycleConfiguration"


@pytest.mark.parametrize("user", [USER, WATCHDOG])
def test_another_bucket_is_out_of_reach(stack: TestStack, bucket: Bucket, user: str):
    """Even one with a longer name that begins alike."""
    client, other = new_client(stack, policy(user, bucket=bucket.name)), f"{bucket.name}-2"
    bucket.admin.create_bucket(Bucket=other)
    bucket.admin.put_object(Bucket=other, Key="a", Body=b"x")
    assert refusal(client.get_object, Bucket=other, Key="a") == "AccessDenied"
    assert refusal(client.put_object, Bucket=other, Key="b", Body=b"x") == "AccessDenied"
    assert refusal(client.list_objects_v2, Bucket=other) == "AccessDenied"
    assert refusal(client.create_bucket, Bucket=f"pv-backup-test-{uuid.uuid4().hex[:12]}") == "AccessDenied"


def test_the_watchdog_looks_and_never_writes(stack: TestStack, bucket: Bucket):
    watchdog, here = new_client(stack, policy(WATCHDOG, bucket=bucket.name)), {"Bucket": bucket.name}
    bucket.admin.put_object(**here, Key="a", Body=b"x", **KMS)

    assert watchdog.get_object(**here, Key="a")["Body"].read() == b"x"
    assert watchdog.head_object(**here, Key="a")["ContentLength"] == 1
    assert [found["Key"] for found in watchdog.list_objects_v2(**here)["Contents"]] == ["a"]
    assert refusal(watchdog.head_object, **here, Key="not there") == "404"

    assert refusal(watchdog.put_object, **here, Key="a", Body=b"y", **KMS) == "AccessDenied"
    assert refusal(watchdog.create_multipart_upload, **here, Key="a", **KMS) == "AccessDenied"
    assert refusal(watchdog.list_multipart_uploads, **here) == "AccessDenied"
    assert refusal(watchdog.delete_object, **here, Key="a") == "AccessDenied"


@pytest.mark.parametrize("encryption", OTHER_ENCRYPTIONS.values(), ids=OTHER_ENCRYPTIONS)
def test_the_bucket_takes_no_other_encryption(
    bucket: Bucket, backup_user: Any, request: pytest.FixtureRequest, encryption: dict[str, Any]
):
    """Of its administrator neither: that is how stolen keys have been used for ransom."""
    attempts = [
        partial(call, Bucket=bucket.name, Key="a", **encryption)
        for client in (backup_user, bucket.admin)
        for call in (client.put_object, client.create_multipart_upload)
    ]
    # This server may fail on a key that it doesn't have, but nobody is forbidden to try.
    assert "AccessDenied" not in [outcome(attempt) for attempt in attempts]
    request.getfixturevalue("no_other_encryption")
    assert [outcome(attempt) for attempt in attempts] == ["AccessDenied"] * len(attempts)
    backup_user.put_object(Bucket=bucket.name, Key="a", Body=b"names none, gets the bucket's own")


def test_the_bucket_answers_nobody_over_http(bucket: Bucket, backup_user: Any):
    bucket.admin.put_object(Bucket=bucket.name, Key="a", Body=b"x")
    bucket.admin.put_bucket_policy(Bucket=bucket.name, Policy=bucket_policy(bucket.name, "OnlyHttps"))
    for client in (backup_user, bucket.admin):
        assert refusal(client.get_object, Bucket=bucket.name, Key="a") == "AccessDenied"
        assert refusal(client.put_object, Bucket=bucket.name, Key="b", Body=b"x", **KMS) == "AccessDenied"
        assert refusal(client.list_objects_v2, Bucket=bucket.name) == "AccessDenied"
