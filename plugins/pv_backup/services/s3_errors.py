"""Tell an S3 failure that may pass from one that will not, since only the first is worth waiting for."""

from __future__ import annotations

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError, ParamValidationError

_PASSING_CODES = frozenset(
    {
        "InternalError",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestTimeout",
        "RequestTimeTooSkewed",
        "OperationAborted",
        "ConditionalRequestConflict",
    }
)
_SERVER_ERROR = 500
_NOT_IMPLEMENTED = 501
_TOO_MANY = 429


def error_code(error: BaseException) -> str:
    """S3's own code (`NoSuchKey`, `PreconditionFailed` …), or the exception's name where S3 did not answer."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "Unknown"))
    return type(error).__name__


def http_status(error: BaseException) -> int:
    """The HTTP status that S3 answered with, 0 where it did not answer."""
    if isinstance(error, ClientError):
        return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return 0


def may_pass(error: BaseException) -> bool:
    """Whether the same call may succeed later: no answer, an overloaded server, a server error."""
    if isinstance(error, ClientError):
        status = http_status(error)
        if status == _NOT_IMPLEMENTED:  # a condition or header that this S3 server does not know, today or tomorrow
            return False
        return status >= _SERVER_ERROR or status == _TOO_MANY or error_code(error) in _PASSING_CODES
    if isinstance(error, NoCredentialsError | ParamValidationError):
        return False
    return isinstance(error, BotoCoreError | HTTPClientError | OSError)


def is_missing(error: BaseException) -> bool:
    """Whether S3 said that there is no such object."""
    # HEAD has no body: S3 says 404 and no more, for a missing bucket too; where it does say more, that counts.
    return isinstance(error, ClientError) and error_code(error) in {"NoSuchKey", "404", "NotFound"}


def is_precondition_failure(error: BaseException) -> bool:
    """Whether an `If-Match` or `If-None-Match` was not met: somebody else wrote there."""
    return isinstance(error, ClientError) and (error_code(error) == "PreconditionFailed" or http_status(error) == 412)


def describe(error: BaseException) -> str:
    """One line without request bodies or credentials, for a message that a person reads."""
    if isinstance(error, ClientError):
        message = error.response.get("Error", {}).get("Message", "")
        return f"{error_code(error)} (HTTP {http_status(error)}) {message}".strip()
    return f"{type(error).__name__}: {error}"
