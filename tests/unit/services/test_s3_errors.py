"""Which S3 failures are worth waiting for, and how they read."""

from __future__ import annotations

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)

from pv_backup.services import s3_errors

pytestmark = pytest.mark.case("TC-ERR-03")


def answered(status, code, message=""):
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject"
    )


@pytest.mark.parametrize(
    "error",
    [
        answered(500, "InternalError"),
        answered(503, "SlowDown"),
        answered(599, "SomethingNew"),
        answered(429, "TooManyRequests"),
        answered(400, "RequestTimeout"),
        answered(403, "RequestTimeTooSkewed"),
        answered(409, "ConditionalRequestConflict"),
        answered(409, "OperationAborted"),
        EndpointConnectionError(endpoint_url="http://s3"),
        ConnectionClosedError(endpoint_url="http://s3"),
        ReadTimeoutError(endpoint_url="http://s3"),
        ConnectionResetError("by peer"),
        TimeoutError(),
    ],
    ids=s3_errors.describe,
)
def test_an_answer_that_may_be_better_later_is_waited_for(error):
    assert s3_errors.may_pass(error)


@pytest.mark.parametrize(
    "error",
    [
        answered(403, "AccessDenied"),
        answered(403, "InvalidAccessKeyId"),
        answered(404, "NoSuchKey"),
        answered(404, "NoSuchUpload"),
        answered(412, "PreconditionFailed"),
        answered(400, "EntityTooSmall"),
        answered(501, "NotImplemented"),
        NoCredentialsError(),
        ParamValidationError(report="bad"),
        ValueError("a bug"),
    ],
    ids=s3_errors.describe,
)
def test_a_refusal_that_will_stand_is_not(error):
    assert not s3_errors.may_pass(error)


@pytest.mark.parametrize("code", ["NoSuchKey", "404", "NotFound"])
def test_a_missing_object_is_not_a_missing_bucket(code):
    assert s3_errors.is_missing(answered(404, code))
    assert not s3_errors.is_missing(answered(404, "NoSuchBucket"))
    assert not s3_errors.is_missing(answered(403, "AccessDenied"))
    assert not s3_errors.is_missing(FileNotFoundError())


@pytest.mark.parametrize("code", ["PreconditionFailed", "412"])
def test_an_unmet_condition_is_recognised(code):
    assert s3_errors.is_precondition_failure(answered(412, code))
    assert not s3_errors.is_precondition_failure(answered(409, "ConditionalRequestConflict"))
    assert not s3_errors.is_precondition_failure(ConnectionResetError())


def test_an_error_is_described_in_one_line():
    assert s3_errors.describe(answered(403, "AccessDenied", "Access Denied.")) == (
        "AccessDenied (HTTP 403) Access Denied."
    )
    assert s3_errors.describe(ConnectionResetError("by peer")) == "ConnectionResetError: by peer"
    assert s3_errors.describe(ClientError({}, "PutObject")) == "Unknown (HTTP 0)"
