"""Every error of botocore and of the services becomes an error of streamq."""

from __future__ import annotations

import inspect
import re
import string
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import aiohttp
import botocore.exceptions as bx
import pytest
from botocore.loaders import Loader

from streamq import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    ClosedError,
    ConfigurationError,
    StorageFullError,
    StreamqError,
    ThrottledError,
)
from streamq_aws import aws_errors, error_code, to_streamq

EXPORTED = {
    name: found
    for name, found in vars(bx).items()
    if inspect.isclass(found) and issubclass(found, Exception)
}
UNAVAILABLE = {
    *("ChecksumError", "ConnectTimeoutError", "ConnectionClosedError", "ConnectionError"),
    *("CredentialRetrievalError", "EndpointConnectionError", "FlexibleChecksumError"),
    *("HTTPClientError", "IncompleteReadError", "MetadataRetrievalError"),
    *("ProxyConnectionError", "ReadTimeoutError", "ResponseStreamingError", "SSLError"),
}
DENIED = {
    *("NoAuthTokenError", "NoCredentialsError", "PartialCredentialsError"),
    *("RefreshWithMFAUnsupportedError", "SSOError", "SSOTokenLoadError", "TokenRetrievalError"),
    *("UnauthorizedSSOTokenError", "UnknownCredentialError", "UnknownSignatureVersionError"),
    "InfiniteLoopConfigError",
}
MISCONFIGURED = {
    *("ConfigNotFound", "ConfigParseError", "EndpointProviderError", "EndpointResolutionError"),
    *("EndpointVariantError", "InvalidConfigError", "InvalidEndpointConfigurationError"),
    *("InvalidProxiesConfigError", "InvalidRegionError", "NoRegionError", "ProfileNotFound"),
    *("UnknownEndpointError", "UnknownEndpointResolutionBuiltInName", "UnknownRegionError"),
    *("UnsupportedS3ArnError", "UnsupportedS3ConfigurationError"),
}


def answer(code: str, status: int = 400, operation: str = "PutObject") -> bx.ClientError:
    """Return an error answer of a service as botocore raises it."""
    said = {"Code": code, "Message": "Some words."}
    return bx.ClientError(
        {"Error": said, "ResponseMetadata": {"HTTPStatusCode": status}}, operation
    )


def dated(code: str, ahead: float, message: str) -> bx.ClientError:
    """Return a refusal whose answer states a time, which this machine's clock is ahead of."""
    said = format_datetime(datetime.fromtimestamp(time.time() - ahead, UTC), usegmt=True)
    headers = {"HTTPStatusCode": 403, "HTTPHeaders": {"date": said}}
    return bx.ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": headers}, "PutObject"
    )


@pytest.mark.parametrize(
    ("code", "ahead", "message", "words"),
    [
        ("RequestTimeTooSkewed", 3_650, "", r"clock is 3\d\d\d s ahead of that of AWS.*NTP"),
        ("RequestTimeTooSkewed", -950, "", r"clock is 9\d\d s behind that of AWS"),
        ("RequestExpired", 3_600, "", "ahead of"),
        ("InvalidSignatureException", -3_600, "Signature not yet current: x", "behind that of AWS"),
        ("SignatureDoesNotMatch", 3_600, "Signature expired: x is now earlier", "ahead of"),
        ("SignatureDoesNotMatch", 3_600, "", "ahead of"),
    ],
)
def test_a_wrong_clock_is_named_and_how_far_it_is_off(
    code: str, ahead: float, message: str, words: str
) -> None:
    """Operators would look for wrong credentials for hours."""
    found = to_streamq(dated(code, ahead, message), "s3sns")
    assert isinstance(found, AccessDeniedError)
    assert re.search(words, str(found)), found


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("InvalidObjectState", 403, "restore-object.*lifecycle"),
        ("KMS.DisabledException", 400, "enable the key"),
        ("KMS.KMSInvalidStateException", 400, "enable the key"),
        ("KMS.NotFoundException", 400, "another one"),
        ("KmsDisabled", 400, "enable the key"),
        ("KmsInvalidState", 400, "enable the key"),
        ("KMSOptInRequired", 403, "enable the key"),
        ("KMS.AccessDeniedException", 400, "kms:GenerateDataKey"),
        ("AllAccessDisabled", 403, "suspended"),
        ("AccountProblem", 403, "suspended"),
        ("OptInRequired", 403, "suspended"),
        ("AccessDenied", 403, "STREAMQ_S3SNS_ENCRYPTION"),
    ],
)
def test_what_does_not_pass_by_itself_is_named_with_the_remedy(
    code: str, status: int, words: str
) -> None:
    """None of these is about the credentials, where the status alone leads to."""
    found = to_streamq(answer(code, status), "s3sns")
    assert found is not None
    assert not found.retryable
    assert re.search(words, str(found)), found


def make(kind: Any) -> Any:
    if issubclass(kind, bx.ClientError):
        return kind({"Error": {"Code": "Strange", "Message": "m"}}, "Operation")
    if kind is bx.WaiterError:
        return kind(name="n", reason="r", last_response={})
    if hasattr(kind, "fmt"):
        named = {name: "x" for _, name, _, _ in string.Formatter().parse(kind.fmt) if name}
        if issubclass(kind, (bx.HTTPClientError, bx.ConnectionError)):
            named |= {"error": "x", "endpoint_url": "http://x"}
        return kind(**named)
    return kind("some reason")


@pytest.mark.parametrize("name", sorted(EXPORTED))
def test_every_exported_exception_is_mapped(name: str) -> None:
    """An unmapped client error would end a worker with a traceback of botocore."""
    with pytest.raises(StreamqError) as caught, aws_errors("s3sns", "tenant/name"):
        raise make(EXPORTED[name])
    error = caught.value
    expected = (
        AccessDeniedError
        if name in DENIED
        else BackendUnavailableError
        if name in UNAVAILABLE
        else ConfigurationError
        if name in MISCONFIGURED
        else BackendError
    )
    assert (expected, "s3sns", "tenant/name") == (type(error), error.backend, error.stream)
    assert isinstance(error.__cause__, EXPORTED[name])


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("AccessDenied", 403, AccessDeniedError),
        ("InvalidAccessKeyId", 403, AccessDeniedError),
        ("SignatureDoesNotMatch", 403, AccessDeniedError),
        ("ExpiredToken", 400, AccessDeniedError),
        ("RequestTimeTooSkewed", 403, AccessDeniedError),
        ("InvalidClientTokenId", 403, AccessDeniedError),
        ("AuthorizationError", 403, AccessDeniedError),
        ("403", 403, AccessDeniedError),
        ("Unheard", 403, AccessDeniedError),
        ("SlowDown", 503, ThrottledError),
        ("ThrottlingException", 400, ThrottledError),
        ("Throttling", 400, ThrottledError),
        ("RequestThrottled", 403, ThrottledError),
        ("TooManyRequestsException", 429, ThrottledError),
        ("KMSThrottlingException", 400, ThrottledError),
        ("503", 503, ThrottledError),
        ("RequestTimeout", 400, BackendUnavailableError),
        ("InternalError", 500, BackendUnavailableError),
        ("ServiceUnavailable", 503, BackendUnavailableError),
        ("NotImplemented", 501, BackendError),
        ("QueueDeletedRecently", 400, BackendUnavailableError),
        ("AWS.SimpleQueueService.QueueDeletedRecently", 400, BackendUnavailableError),
        ("AWS.SimpleQueueService.PurgeQueueInProgress", 403, BackendUnavailableError),
        ("ConditionalRequestConflict", 409, BackendUnavailableError),
        ("Unheard", 502, BackendUnavailableError),
        ("Unheard", 429, ThrottledError),
        ("InsufficientStorage", 507, StorageFullError),
        ("OverLimit", 403, StorageFullError),
        ("NoSuchBucket", 404, BackendError),
        ("AWS.SimpleQueueService.NonExistentQueue", 400, BackendError),
        ("PermanentRedirect", 301, BackendError),
        ("AuthorizationHeaderMalformed", 400, BackendError),
        ("Unheard", 400, BackendError),
    ],
)
def test_every_kind_of_answer_is_mapped(
    code: str, status: int, expected: type[StreamqError]
) -> None:
    """The class of the error decides whether to wait, to stop or to call an operator."""
    found = to_streamq(answer(code, status), "s3sns", about="bucket logs")
    assert type(found) is expected
    for part in (code, "PutObject", "bucket logs", "Some words"):
        assert part in str(found)


def test_a_missing_bucket_and_a_wrong_region_name_the_next_step() -> None:
    """The messages of the two most common mistakes name the command or variable to use."""
    assert "streamq doctor --create" in str(to_streamq(answer("NoSuchBucket", 404), "s3sns"))
    assert "AWS_DEFAULT_REGION" in str(to_streamq(answer("PermanentRedirect", 301), "s3sns"))


@pytest.mark.parametrize(
    "error",
    [ConnectionResetError(104, "reset"), TimeoutError(), aiohttp.ClientPayloadError("cut")],
)
def test_network_errors_are_retryable(error: Exception) -> None:
    """The core repeats calls that a network failure interrupted."""
    found = to_streamq(error, "s3sns")
    assert isinstance(found, BackendUnavailableError)
    assert found.retryable


def test_other_errors_pass_unchanged() -> None:
    """A bug must not look like a network failure, and errors of streamq stay as they are."""
    with pytest.raises(KeyError), aws_errors("s3sns"):
        raise KeyError("x")
    with pytest.raises(ClosedError), aws_errors("s3sns"):
        raise ClosedError("closed")


def test_only_answers_of_services_have_a_code() -> None:
    """Drivers decide by the code; other errors have none."""
    assert error_code(answer("NoSuchKey")) == "NoSuchKey"
    assert error_code(ValueError("NoSuchKey")) == ""


def _codes(*parts: str) -> set[str]:
    """Return the codes in the services' models that contain one of these parts."""
    loader = Loader()
    found = set()
    for service in ("s3", "sns", "sqs"):
        shapes = loader.load_service_model(service, "service-2")["shapes"]
        for name, shape in shapes.items():
            code = shape.get("error", {}).get("code", name) if shape.get("exception") else ""
            found |= {each for each in (code, name) if code and any(p in each for p in parts)}
    return found


@pytest.mark.parametrize("code", sorted(_codes("Throttl") | {"KMS.ThrottlingException"}))
def test_every_throttling_code_of_the_services_is_known(code: str) -> None:
    """SNS, SQS and their models spell the same error of KMS in different ways."""
    with pytest.raises(ThrottledError), aws_errors("sqs"):
        raise answer(code)


@pytest.mark.parametrize("code", sorted(_codes("Denied")))
def test_every_denial_code_of_the_services_is_known(code: str) -> None:
    """A missing permission must not look like an outage."""
    with pytest.raises(AccessDeniedError), aws_errors("sqs"):
        raise answer(code)
