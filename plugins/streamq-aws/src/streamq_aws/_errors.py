"""Converts errors of botocore, of the services and of the network to errors of streamq.

Design: docs/design/aws.md.
"""

from __future__ import annotations

import functools
import re

import aiohttp
import botocore.exceptions as bx
from botocore.parsers import ResponseParserError

from streamq.driver import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    ConfigurationError,
    ErrorRule,
    ErrorTable,
    StorageFullError,
    StreamqError,
    ThrottledError,
    exception_classes,
    mask_credentials,
    translated_errors,
)

from ._clock import difference, seconds_ahead
from ._credentials import CLOCK_WORDS, EXPIRED, SCOPE_WORDS, UNKNOWN_KEY

_DENIED = frozenset(
    {
        *("401", "403", "AccessDenied", "AccessDeniedException", "AuthorizationError"),
        *("Forbidden", "MissingAuthenticationToken", "UnauthorizedAccess", "UnauthorizedOperation"),
        *EXPIRED,
        *UNKNOWN_KEY,
        *(
            "IncompleteSignature",
            "KMS.AccessDeniedException",
            "KMSAccessDenied",
            "KMSAccessDeniedException",
            "KmsAccessDenied",
        ),
    }
)
_MISSING = frozenset(
    {
        *("NoSuchBucket", "NonExistentQueue", "QueueDoesNotExist"),
        *("NotFound", "NotFoundException", "404"),
    }
)
_WRONG_REGION = frozenset(
    {
        *("301", "PermanentRedirect", "AuthorizationHeaderMalformed"),
        *("IllegalLocationConstraintException", "InvalidRegion"),
    }
)
_UNHANDLED = "An HTTP Client raised an unhandled exception: "  # misleading: streamq handles it
_CLOCK = frozenset({"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"})
_SKEWED_SECONDS = 240.0  # requests are refused from 300 or 900 seconds on
_ACCOUNT = frozenset(
    {
        *("AccountProblem", "AllAccessDisabled", "NotSignedUp", "OptInRequired", "InvalidPayer"),
        *("SubscriptionRequiredException", "AccountSuspended", "UserSuspended"),
    }
)
_ARCHIVED = frozenset({"InvalidObjectState", "ObjectNotInActiveTierError"})
_KEY_IS_OFF = re.compile(
    r"KMS.*(Disabled|InvalidState|NotFound|OptIn|InvalidKeyUsage)", re.IGNORECASE
)
_UPLOADS = frozenset({"PutObject", "CreateMultipartUpload"})
_DELETED_RECENTLY = "QueueDeletedRecently"
_SQS = "AWS.SimpleQueueService."
_THROTTLED = frozenset(
    {
        *("SlowDown", "Throttling", "ThrottlingException", "ThrottledException", "Throttled"),
        *("RequestThrottled", "RequestThrottledException", "TooManyRequestsException", "429"),
        *("RequestLimitExceeded", "BandwidthLimitExceeded", "KMSThrottlingException"),
        *("KMSThrottled", "KmsThrottled", "KMSThrottling", "KMS.ThrottlingException"),
        "PriorRequestNotComplete",
        "503",  # an answer to HEAD has only its status
    }
)
_TRANSIENT = frozenset(
    {
        "PurgeQueueInProgress",
        *("RequestTimeout", "RequestTimeoutException", "InternalError", "InternalFailure"),
        *("InternalServerError", "ServiceUnavailable", "ServiceUnavailableException"),
        *("OperationAborted", "ConditionalRequestConflict", "BadDigest", "IncompleteBody"),
        *("TemporaryRedirect", "XAmzContentSHA256Mismatch"),
    }
)
_FULL = frozenset(
    {
        *("507", "InsufficientStorage", "InsufficientStorageSpace", "QuotaExceeded"),
        *("ServiceQuotaExceededException", "XMinioStorageFull", "OverLimit"),
        *("StorageQuotaExceeded",),
    }
)

_NOT_IMPLEMENTED = 501  # repeating the request is of no use

# The first match wins, so subclasses come before their bases.
_RULES = (
    ErrorRule(
        (
            bx.NoCredentialsError,
            bx.PartialCredentialsError,
            bx.NoAuthTokenError,
            bx.SSOError,
            bx.TokenRetrievalError,
            bx.UnknownCredentialError,
            bx.UnknownSignatureVersionError,
            bx.RefreshWithMFAUnsupportedError,
            bx.InfiniteLoopConfigError,
        ),
        AccessDeniedError,
        "there are no AWS credentials that can be used: {why}; set AWS_PROFILE, or "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role",
    ),
    ErrorRule(
        (bx.CredentialRetrievalError, bx.MetadataRetrievalError),
        BackendUnavailableError,
        "AWS credentials cannot be fetched now: {why}; check their source: the profile "
        "(AWS_PROFILE, AWS_CONFIG_FILE), or the role of the machine or container",
    ),
    ErrorRule(
        (
            bx.ProfileNotFound,
            bx.ConfigNotFound,
            bx.ConfigParseError,
            bx.InvalidConfigError,
            bx.NoRegionError,
            bx.InvalidRegionError,
            bx.UnknownRegionError,
            bx.UnknownEndpointError,
            bx.EndpointProviderError,
            bx.EndpointVariantError,
            bx.InvalidEndpointConfigurationError,
            bx.InvalidProxiesConfigError,
            bx.UnsupportedS3ConfigurationError,
            bx.UnsupportedS3ArnError,
        ),
        ConfigurationError,
        "the AWS configuration cannot be used: {why}; check AWS_PROFILE, AWS_DEFAULT_REGION and "
        "AWS_ENDPOINT_URL",
    ),
    ErrorRule(
        (bx.ConnectTimeoutError, bx.ReadTimeoutError, aiohttp.ServerTimeoutError, TimeoutError),
        BackendUnavailableError,
        "AWS did not answer in time: {why}",
    ),
    ErrorRule(
        (
            bx.ConnectionError,
            bx.HTTPClientError,
            bx.IncompleteReadError,
            bx.ChecksumError,
            bx.FlexibleChecksumError,
            ResponseParserError,
            aiohttp.ClientError,
            OSError,
        ),
        BackendUnavailableError,
        "cannot reach AWS ({why}); check the region (AWS_DEFAULT_REGION), and, if the services are "
        "elsewhere, AWS_ENDPOINT_URL",
    ),
)
_CLIENT_CLASSES = (
    aiohttp.ClientError,
    ResponseParserError,
    OSError,
    *exception_classes(bx),
)


@functools.cache
def _table(backend: str) -> ErrorTable:
    return ErrorTable(
        backend,
        _RULES,
        client=_CLIENT_CLASSES,
        reason=why,
        otherwise="the AWS client failed: {kind}: {why}",
    )


def error_code(error: BaseException) -> str:
    """Return the code of a service's error, such as ``NoSuchKey``; empty for any other error."""
    if not isinstance(error, bx.ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code", ""))


def http_status(error: BaseException) -> int:
    """Return the HTTP status of a service's error; 0 for any other error."""
    if not isinstance(error, bx.ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_throttling(code: str) -> bool:
    """Whether a code of a service says that it takes no more requests for now."""
    return code in _THROTTLED


def to_streamq(
    error: Exception, backend: str, stream: str | None = None, *, about: str = ""
) -> StreamqError | None:
    """Return streamq's error for one of the client, a service or the network; else ``None``.

    Args:
        error: The error that was raised.
        backend: The driver's name.
        stream: Stream that the call was about, as ``tenant/name``.
        about: Subject of the call, such as ``bucket logs``, for the message.
    """
    if not isinstance(error, bx.ClientError):
        return _table(backend).translate(error, stream)
    kind, message = _judge(error)
    where = f" ({about})" if about else ""
    text = message.format(what=f"{error.operation_name}{where}", why=_reason(error))
    return kind(text, backend=backend, stream=stream)


def _judge(error: bx.ClientError) -> tuple[type[StreamqError], str]:
    code, status = error_code(error).removeprefix(_SQS), http_status(error)
    reason = _reason(error)
    if code in _CLOCK or any(words in reason for words in CLOCK_WORDS):
        return (
            AccessDeniedError,
            "AWS refuses {what} because the clocks differ: {why}; "
            f"{difference(error.response)}; set this machine's clock by NTP",
        )
    if code in _ARCHIVED:
        return (
            BackendError,
            "{what} needs an object that was moved to an archive: {why}; restore it (`aws s3api "
            "restore-object`), and let the bucket's lifecycle rule wait for longer than the time "
            "to live: `streamq doctor` names the rule",
        )
    if _KEY_IS_OFF.match(code):
        return (
            BackendError,
            "{what} needs a KMS key that cannot be used: {why}; enable the key, or set another one "
            "for the bucket, the queue or streamq",
        )
    if code in _FULL or status == 507:
        return StorageFullError, "AWS has no room for {what}: {why}; delete data or raise the quota"
    if code == _DELETED_RECENTLY:
        return (
            BackendUnavailableError,
            "AWS cannot serve {what} now: {why}; SQS needs 60 seconds after a deletion, and "
            "STREAMQ_RETRY_SECONDS states how long streamq waits",
        )
    if code in _TRANSIENT:
        return BackendUnavailableError, "AWS cannot serve {what} now: {why}"
    if code in _THROTTLED or status == 429:
        return ThrottledError, "AWS takes no more of {what} for now: {why}"
    if code in _MISSING:
        return (
            BackendError,
            "{what} refers to something that does not exist: {why}; check the settings and the "
            "region, or run `streamq doctor --create`",
        )
    if code in _WRONG_REGION or status == 301 or SCOPE_WORDS in reason:
        return (
            BackendError,
            "{what} went to the wrong region: {why}; set AWS_DEFAULT_REGION to "
            f"{_region(error) or 'where it is'}",
        )
    if code in _ACCOUNT:
        return (
            AccessDeniedError,
            "AWS refuses {what}: {why}; the account is closed or suspended, or may not use this "
            "service: see its billing and support pages",
        )
    if code in _DENIED or status in (401, 403):
        return AccessDeniedError, "AWS refuses {what}: {why}; " + _denied_step(error, reason)
    if status >= 500 and status != _NOT_IMPLEMENTED:
        return BackendUnavailableError, "AWS cannot serve {what} now: {why}"
    return BackendError, "AWS answered {what} with an error: {why}"


def _denied_step(error: bx.ClientError, reason: str) -> str:
    """Return the next step after a refusal."""
    step = "check the credentials, and the permissions that the README of the driver lists"
    if "kms:" in reason.lower() or "KMS" in error_code(error).upper():
        step += "; the KMS key's policy has to allow kms:GenerateDataKey and kms:Decrypt"
    elif error.operation_name in _UPLOADS:
        step += "; if the bucket's policy demands encryption, set STREAMQ_S3SNS_ENCRYPTION"
    if abs(seconds_ahead(error.response)) > _SKEWED_SECONDS:
        step += f"; {difference(error.response)}"
    return step


def _region(error: bx.ClientError) -> str:
    """Return the region in which the service says that it is; empty if it does not say."""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    said = headers.get("x-amz-bucket-region") or error.response.get("Error", {}).get("Region")
    return str(said or "")


class aws_errors(translated_errors):
    """Context manager that turns every error of the client into one of streamq's.

    Args:
        backend: The driver's name.
        stream: Stream that the call is about, if it is about one.
        about: Subject of the call, such as ``bucket logs``, for the message.
    """

    __slots__ = ()

    def __init__(self, backend: str, stream: object = None, *, about: str = "") -> None:
        super().__init__(lambda error, name: to_streamq(error, backend, name, about=about), stream)


def _reason(error: bx.ClientError) -> str:
    said = error.response.get("Error", {})
    code, message = said.get("Code") or "no code", said.get("Message") or "no message"
    return f"{code}, {str(message).strip().rstrip('.')}"


def why(error: Exception) -> str:
    """Return the text of an error, in one line and without credentials."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).removeprefix(_UNHANDLED).split()).rstrip(".")
    return mask_credentials(text) or type(error).__name__
