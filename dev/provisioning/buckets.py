"""S3: versioned buckets, and a user limited by a real IAM policy to what SPEC section 9 allows."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Any

from dev.credentials import Credentials
from dev.servers.seaweedfs import AccessKey, SeaweedFs

POLICY_FILE = Path(__file__).parents[1] / "policies" / "backup_user.json"
USER = "backup_user"


def ensure_bucket(s3: SeaweedFs, name: str) -> None:
    """Make the bucket, with versioning on, unless it is there."""
    client = s3.client()
    try:
        client.create_bucket(Bucket=name)
    except client.exceptions.BucketAlreadyOwnedByYou:
        return
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})


def backup_user(credentials: Credentials) -> AccessKey:
    """The credentials that :func:`ensure_backup_user` kept.

    :raises LookupError: when the user was not made yet.
    """
    access_key, secret_key = credentials.find("s3_backup_access_key"), credentials.find("s3_backup_secret_key")
    if access_key is None or secret_key is None:
        raise LookupError(f"{USER} has no access key yet; start the stack first")
    return AccessKey(access_key=access_key, secret_key=secret_key)


def ensure_backup_user(s3: SeaweedFs, credentials: Credentials, *, bucket_pattern: str) -> None:
    """Make the user, attach the policy, and draw an access key unless the one that we keep is still good."""
    iam = s3.client(service="iam")
    try:
        iam.create_user(UserName=USER)
    except iam.exceptions.EntityAlreadyExistsException:
        if credentials.find("s3_backup_access_key") in _access_keys(iam):
            return
    document = Template(POLICY_FILE.read_text()).substitute(bucket=bucket_pattern)
    try:
        arn = iam.create_policy(PolicyName=USER, PolicyDocument=document)["Policy"]["Arn"]
    except iam.exceptions.EntityAlreadyExistsException:
        arn = f"arn:aws:iam:::policy/{USER}"
    iam.attach_user_policy(UserName=USER, PolicyArn=arn)
    key = iam.create_access_key(UserName=USER)["AccessKey"]
    credentials.put("s3_backup_secret_key", key["SecretAccessKey"])
    credentials.put("s3_backup_access_key", key["AccessKeyId"])


def _access_keys(iam: Any) -> set[str]:
    return {key["AccessKeyId"] for key in iam.list_access_keys(UserName=USER)["AccessKeyMetadata"]}
