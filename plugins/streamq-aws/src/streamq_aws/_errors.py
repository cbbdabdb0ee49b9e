"""From what botocore and the services call errors to what streamq calls them: the one place."""

from __future__ import annotations

import inspect
import re
from types import TracebackType

import aiohttp
import botocore.exceptions as bx
from botocore.parsers import ResponseParserError

from streamq.driver import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    ConfigurationError,
    StorageFullError,
    StreamqError,
    ThrottledError,
)

_DENIED = frozenset(
    {
        *("401", "403", "AccessDenied", "AccessDeniedException", "AuthorizationError"),
        *("AuthFailure", "AccountProblem", "AllAccessDisabled", "ExpiredToken"),
        *("ExpiredTokenException", "Forbidden", "InvalidAccessKeyId", "InvalidClientTokenId"),
        *("InvalidSecurity", "InvalidToken", "MissingAuthenticationToken", "NotSignedUp"),
        *("OptInRequired", "RequestExpired", "RequestTimeTooSkewed", "SignatureDoesNotMatch"),
        *("UnauthorizedAccess", "UnauthorizedOperation", "UnrecognizedClientException"),
        *(
            "IncompleteSignature",
            "InvalidSignatureException",
            "KMS.AccessDeniedException",
            "KMSAccessDenied",
            "KMSAccessDeniedException",
            "KmsAccessDenied",
        ),
    }
)
_MISSING = frozenset(
    {
        *("NoSuchBucket", "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"),
        *("NotFound", "NotFoundException", "404"),
    }
)
_ELSEWHERE = frozenset(
    {
        *("301", "PermanentRedirect", "AuthorizationHeaderMalformed"),
        *("IllegalLocationConstraintException", "InvalidRegion"),
    }
)
_USER = re.compile(r"[^\s/\"@]+:[^\s/\"@]+@")  # credentials that somebody put into an address
_UNHANDLED = "An HTTP Client raised an unhandled exception: "  # we do handle it
_SCOPE = "Credential should be scoped to"  # a valid region: services refuse the signature then
_THROTTLED = frozenset(
    {
        *("SlowDown", "Throttling", "ThrottlingException", "ThrottledException", "Throttled"),
        *("RequestThrottled", "RequestThrottledException", "TooManyRequestsException", "429"),
        *("RequestLimitExceeded", "BandwidthLimitExceeded", "KMSThrottlingException"),
        *("KMSThrottled", "KmsThrottled", "KMSThrottling", "KMS.ThrottlingException"),
        "PriorRequestNotComplete",
        "503",  # an answer to HEAD has no other code
    }
)
_PASSING = frozenset(
    {
        "AWS.SimpleQueueService.QueueDeletedRecently",
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

_NEVER = 501  # "not implemented": asking again is of no use

# First match wins, so that subclasses come before their bases.
_RULES: tuple[tuple[tuple[type[Exception], ...], type[StreamqError], str], ...] = (
    (
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
    (
        (bx.CredentialRetrievalError, bx.MetadataRetrievalError),
        BackendUnavailableError,
        "AWS credentials cannot be fetched now: {why}; look at the profile or role in use",
    ),
    (
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
        "the AWS configuration cannot be used: {why}; look at AWS_PROFILE, AWS_DEFAULT_REGION and "
        "AWS_ENDPOINT_URL",
    ),
    (
        (bx.ConnectTimeoutError, bx.ReadTimeoutError, aiohttp.ServerTimeoutError, TimeoutError),
        BackendUnavailableError,
        "AWS did not answer in time: {why}",
    ),
    (
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
_CLIENT_CLASSES: tuple[type[Exception], ...] = (
    aiohttp.ClientError,
    ResponseParserError,
    *(each for each in vars(bx).values() if inspect.isclass(each) and issubclass(each, Exception)),
)


def error_code(error: BaseException) -> str:
    """Return what a service calls its error, such as ``NoSuchKey``; empty for any other error."""
    if not isinstance(error, bx.ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code", ""))


def http_status(error: BaseException) -> int:
    """Return the HTTP status of a service's error; 0 for any other error."""
    if not isinstance(error, bx.ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def to_streamq(
    error: Exception, backend: str, stream: str | None = None, *, about: str = ""
) -> StreamqError | None:
    """Return our error for one of the client, a service or the network; ``None`` otherwise.

    Args:
        error: What was raised.
        backend: The driver's name.
        stream: Which stream, as ``tenant/name``.
        about: What the call was about, such as ``bucket logs``, for the message.
    """
    if not isinstance(error, (*_CLIENT_CLASSES, OSError)):
        return None
    if isinstance(error, bx.ClientError):
        kind, message = _judge(error)
        where = f" ({about})" if about else ""
        text = message.format(what=f"{error.operation_name}{where}", why=_reason(error))
        return kind(text, backend=backend, stream=stream)
    for classes, kind, message in _RULES:
        if isinstance(error, classes):
            return kind(message.format(why=why(error)), backend=backend, stream=stream)
    return BackendError(
        f"the AWS client failed: {type(error).__name__}: {why(error)}",
        backend=backend,
        stream=stream,
    )


def _judge(error: bx.ClientError) -> tuple[type[StreamqError], str]:
    code, status = error_code(error), http_status(error)
    if code in _FULL or status == 507:
        return StorageFullError, "AWS has no room for {what}: {why}; delete data or raise the quota"
    if code in _PASSING:
        return BackendUnavailableError, "AWS cannot serve {what} now: {why}"
    if code in _THROTTLED or status == 429:
        return ThrottledError, "AWS takes no more of {what} for now: {why}"
    if code in _MISSING:
        return (
            BackendError,
            "what {what} needs does not exist: {why}; look at the settings and the region, or run "
            "`streamq doctor --create`",
        )
    if code in _ELSEWHERE or status == 301 or _SCOPE in _reason(error):
        return (
            BackendError,
            "{what} went to the wrong region: {why}; set AWS_DEFAULT_REGION to where it is",
        )
    if code in _DENIED or status in (401, 403):
        return (
            AccessDeniedError,
            "AWS refuses {what}: {why}; check the credentials, and the permissions that the "
            "README of the driver lists",
        )
    if status >= 500 and status != _NEVER:
        return BackendUnavailableError, "AWS cannot serve {what} now: {why}"
    return BackendError, "AWS answered {what} with an error: {why}"


class aws_errors:
    """Context manager that turns every error of the client into one of streamq's.

    A class and not a generator because it is entered for every call.
    """

    __slots__ = ("_about", "_backend", "_stream")

    def __init__(self, backend: str, stream: object = None, *, about: str = "") -> None:
        self._backend = backend
        self._stream = stream
        self._about = about

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if exc is None or isinstance(exc, StreamqError) or not isinstance(exc, Exception):
            return
        stream = None if self._stream is None else str(self._stream)
        ours = to_streamq(exc, self._backend, stream, about=self._about)
        if ours is not None:
            raise ours from exc


def _reason(error: bx.ClientError) -> str:
    said = error.response.get("Error", {})
    code, message = said.get("Code") or "no code", said.get("Message") or "no message"
    return f"{code}, {str(message).strip().rstrip('.')}"


def why(error: Exception) -> str:
    """Return an error's own words, in one line and without credentials."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).removeprefix(_UNHANDLED).split()).rstrip(".")
    return _USER.sub("***@", text) or type(error).__name__
