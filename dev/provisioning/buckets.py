"""S3: versioned buckets, and a user limited to what production's own IAM policy allows (terraform/policies)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from string import Template
from typing import Any

from dev.credentials import Credentials
from dev.provisioning.keys import SSE_KEY
from dev.servers.seaweedfs import REGION, AccessKey, SeaweedFs

POLICIES = Path(__file__).parents[2] / "terraform" / "policies"
USER = "backup_user"
WATCHDOG = "backup_watchdog"
# SeaweedFS knows its keys by bare names and judges nobody's right to them: the ARN only has to be one.
KMS_KEY_ARN = f"arn:aws:kms:{REGION}:000000000000:key/{SSE_KEY}"


def ensure_bucket(s3: SeaweedFs, name: str) -> None:
    """Make the bucket, with versioning on, unless it is there."""
    client = s3.client()
    try:
        client.create_bucket(Bucket=name)
    except client.exceptions.BucketAlreadyOwnedByYou:
        return
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})


def policy_document(user: str, *, bucket_pattern: str) -> str:
    """The policy that Terraform attaches to this user, of which only the two ARNs are other here.

    :param user: :data:`USER` or :data:`WATCHDOG`.
    """
    template = Template((POLICIES / f"{user}.json.tftpl").read_text())
    return template.substitute(bucket_arn=f"arn:aws:s3:::{bucket_pattern}", kms_key_arn=KMS_KEY_ARN)


def ensure_user(s3: SeaweedFs, name: str, document: str) -> AccessKey:
    """Make the user unless it is there, attach a policy of the same name, and draw another access key for it."""
    iam = s3.client(service="iam")
    with suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_user(UserName=name)
    try:
        arn = iam.create_policy(PolicyName=name, PolicyDocument=document)["Policy"]["Arn"]
    except iam.exceptions.EntityAlreadyExistsException:
        arn = f"arn:aws:iam:::policy/{name}"
    iam.attach_user_policy(UserName=name, PolicyArn=arn)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return AccessKey(access_key=key["AccessKeyId"], secret_key=key["SecretAccessKey"])


def backup_user(credentials: Credentials) -> AccessKey:
    """The credentials that :func:`ensure_backup_user` kept.

    :raises LookupError: when the user was not made yet.
    """
    access_key, secret_key = credentials.find("s3_backup_access_key"), credentials.find("s3_backup_secret_key")
    if access_key is None or secret_key is None:
        raise LookupError(f"{USER} has no access key yet; start the stack first")
    return AccessKey(access_key=access_key, secret_key=secret_key)


def ensure_backup_user(s3: SeaweedFs, credentials: Credentials, *, bucket_pattern: str) -> None:
    """Make the user with its policy, and keep its access key, unless the one that we keep is still good."""
    kept = credentials.find("s3_backup_access_key")
    if kept is not None and kept in _access_keys(s3.client(service="iam"), USER):
        return
    key = ensure_user(s3, USER, policy_document(USER, bucket_pattern=bucket_pattern))
    credentials.put("s3_backup_secret_key", key.secret_key)
    credentials.put("s3_backup_access_key", key.access_key)


def _access_keys(iam: Any, user: str) -> set[str]:
    try:
        listing = iam.list_access_keys(UserName=user)
    except iam.exceptions.NoSuchEntityException:
        return set()
    return {key["AccessKeyId"] for key in listing["AccessKeyMetadata"]}
