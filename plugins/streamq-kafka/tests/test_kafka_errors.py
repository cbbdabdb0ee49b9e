"""Every error that aiokafka knows becomes one of streamq's."""

from __future__ import annotations

import inspect
import ssl

import aiokafka.errors as ke
import pytest

from streamq.driver import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    ClosedError,
    StorageFullError,
    StreamqError,
    ThrottledError,
)
from streamq_kafka._errors import TopicMissing, kafka_errors, translator

EXPORTED = {
    name: found
    for name, found in vars(ke).items()
    if inspect.isclass(found) and issubclass(found, Exception) and found.__module__ == ke.__name__
}
DENIED = {
    ke.AuthenticationFailedError,
    ke.AuthenticationMethodNotSupported,
    ke.ClusterAuthorizationFailedError,
    ke.DelegationTokenAuthDisabled,
    ke.DelegationTokenAuthorizationFailed,
    ke.DelegationTokenExpired,
    ke.DelegationTokenNotFound,
    ke.DelegationTokenOwnerMismatch,
    ke.DelegationTokenRequestNotAllowed,
    ke.GroupAuthorizationFailedError,
    ke.IllegalSaslStateError,
    ke.InvalidPrincipalType,
    ke.SaslAuthenticationFailed,
    ke.SecurityDisabled,
    ke.TopicAuthorizationFailedError,
    ke.TransactionalIdAuthorizationFailed,
    ke.UnsupportedSaslMechanismError,
}
THROTTLED = {ke.QuotaViolationError}
FULL = {ke.KafkaStorageError, ke.LogDirNotFound}
FINAL = {
    ke.CommitFailedError,
    ke.ConcurrentTransactions,
    ke.CorruptRecordException,
    ke.FetchSessionIdNotFound,
    ke.GroupIdNotFound,
    ke.IllegalArgumentError,
    ke.IllegalGenerationError,
    ke.IllegalOperation,
    ke.IllegalStateError,
    ke.IncompatibleBrokerVersion,
    ke.InconsistentGroupProtocolError,
    ke.InvalidCommitOffsetSizeError,
    ke.InvalidConfigurationError,
    ke.InvalidFetchRequestError,
    ke.InvalidFetchSessionEpoch,
    ke.InvalidGroupIdError,
    ke.InvalidPartitionsError,
    ke.InvalidReplicationAssignmentError,
    ke.InvalidReplicationFactorError,
    ke.InvalidRequestError,
    ke.InvalidRequiredAcksError,
    ke.InvalidSessionTimeoutError,
    ke.InvalidTimestampError,
    ke.InvalidTopicError,
    ke.InvalidTransactionTimeout,
    ke.InvalidTxnState,
    ke.BrokerResponseError,
    ke.KafkaConfigurationError,
    ke.KafkaError,
    ke.MemberIdRequired,
    ke.MessageSizeTooLargeError,
    ke.NoError,
    ke.NoOffsetForPartitionError,
    ke.NonEmptyGroup,
    ke.OffsetMetadataTooLargeError,
    ke.OperationNotAttempted,
    ke.PolicyViolationError,
    ke.RecordListTooLargeError,
    ke.RecordTooLargeError,
    ke.TopicAlreadyExistsError,
    ke.TransactionCoordinatorFenced,
    ke.UnknownError,
    ke.UnknownMemberIdError,
    ke.UnrecognizedBrokerVersion,
    ke.UnsupportedCodecError,
    ke.UnsupportedForMessageFormatError,
    ke.UnsupportedVersionError,
}


def expected_for(error: type[Exception]) -> type[StreamqError]:
    if error in DENIED:
        return AccessDeniedError
    if error in FULL:
        return StorageFullError
    if error in THROTTLED:
        return ThrottledError
    if error in FINAL:
        return BackendError
    return ClosedError if error is ke.ConsumerStoppedError else BackendUnavailableError


@pytest.mark.parametrize("name", sorted(EXPORTED))
def test_every_exported_exception_is_mapped(name: str) -> None:
    """A client error that is not mapped ends a worker with a foreign traceback."""
    with pytest.raises(StreamqError) as caught, kafka_errors("kafka.example:9092", "tenant/name"):
        raise EXPORTED[name]("some reason")
    error = caught.value
    assert (type(error), error.backend, error.stream) == (
        expected_for(EXPORTED[name]),
        "kafka",
        "tenant/name",
    )
    assert isinstance(error.__cause__, EXPORTED[name])


@pytest.mark.parametrize("name", sorted(EXPORTED))
def test_errors_that_aiokafka_would_retry_are_retryable(name: str) -> None:
    """A failover that aiokafka would wait for must not end a stream."""
    mapped = translator("kafka.example:9092")(EXPORTED[name]("some reason"), None)
    assert mapped is not None
    if getattr(EXPORTED[name], "retriable", False):
        assert mapped.retryable


@pytest.mark.parametrize(
    "error",
    [ConnectionResetError(104, "reset"), TimeoutError(), OSError(5, "io"), ssl.SSLError(1, "tls")],
)
def test_network_errors_are_retryable(error: OSError) -> None:
    """streamq retries calls that the network interrupted."""
    mapped = translator("localhost:9092")(error, None)
    assert isinstance(mapped, BackendUnavailableError)
    assert mapped.retryable


def test_untrusted_certificate_is_not_retryable() -> None:
    """Waiting half a minute does not make an unknown authority known."""
    mapped = translator("localhost:9092")(
        ssl.SSLCertVerificationError(1, "unknown authority"), None
    )
    assert isinstance(mapped, AccessDeniedError)
    assert "STREAMQ_KAFKA_TLS_CA_FILE" in str(mapped)


def test_error_of_a_missing_topic_names_the_remedy() -> None:
    """It is the first error that a new user sees, so it has to be the easiest to correct."""
    mapped = translator("localhost:9092")(TopicMissing("streamq-acme"), None)
    assert isinstance(mapped, BackendError)
    assert "'streamq-acme'" in str(mapped)
    assert "streamq doctor --create" in str(mapped)


def test_other_errors_pass_unchanged() -> None:
    """A bug must not look like a network failure, and streamq's errors need no translation."""
    with pytest.raises(KeyError), kafka_errors("localhost:9092"):
        raise KeyError("x")
    with pytest.raises(ClosedError), kafka_errors("localhost:9092"):
        raise ClosedError("closed")
