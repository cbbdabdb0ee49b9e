"""Turns the errors of aiokafka and of the network into streamq's errors.

Design: docs/design/kafka.md.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable

import aiokafka.errors as ke

from streamq.driver import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    ClosedError,
    ConfigurationError,
    ErrorRule,
    ErrorTable,
    StorageFullError,
    StreamqError,
    ThrottledError,
    exception_classes,
    translated_errors,
)

from ._naming import BACKEND


class TopicMissing(ke.KafkaError):  # type: ignore[misc]
    """A topic does not exist."""

    def __init__(self, topic: str) -> None:
        super().__init__(topic)
        self.topic = topic


class CredentialsUnavailable(ke.KafkaError):  # type: ignore[misc]
    """The source of the credentials, or a file of certificates, cannot be used now."""


class CredentialsUnusable(CredentialsUnavailable):
    """The source of the credentials is configured wrongly."""


class TokenUnavailable(CredentialsUnavailable):
    """The application's function returned no token."""


class LoginRefused(ke.KafkaError):  # type: ignore[misc]
    """The brokers refuse credentials that were accepted before and may change."""


class Throttled(ke.KafkaError):  # type: ignore[misc]
    """A broker delays our requests for longer than a call may take."""


class RecordRefused(ke.KafkaError):  # type: ignore[misc]
    """The checks of a broker refuse a record."""


class CompressionRefused(ke.KafkaError):  # type: ignore[misc]
    """A broker does not know the compression of a batch."""


class SessionLost(ke.KafkaError):  # type: ignore[misc]
    """An idempotent producer cannot continue; the next call starts a new one."""


class PositionBeyondEnd(ke.KafkaError):  # type: ignore[misc]
    """A partition is shorter than it was: its broker was replaced, or has lost data."""


_QUOTAS = (
    "raise the quotas of this user and client id (producer_byte_rate, consumer_byte_rate, "
    "request_percentage, controller_mutation_rate), or send less"
)

# First match wins, so that subclasses come before their bases.
_RULES = (
    ErrorRule(
        (TopicMissing,),
        BackendError,
        "topic {why!r} does not exist on Kafka at {at}; create it, or let `streamq doctor "
        "--create` do it, or set STREAMQ_KAFKA_TOPIC",
    ),
    ErrorRule(
        (
            ke.AuthenticationFailedError,
            ke.AuthenticationMethodNotSupported,
            ke.SaslAuthenticationFailed,
            ke.UnsupportedSaslMechanismError,
            ke.IllegalSaslStateError,
            ke.DelegationTokenExpired,
            ke.DelegationTokenNotFound,
            ke.DelegationTokenOwnerMismatch,
            ke.InvalidPrincipalType,
        ),
        AccessDeniedError,
        "Kafka at {at} refuses our credentials: {why}; check STREAMQ_KAFKA_SECURITY_PROTOCOL and "
        "STREAMQ_KAFKA_SASL_...",
    ),
    ErrorRule(
        (
            ke.TopicAuthorizationFailedError,
            ke.GroupAuthorizationFailedError,
            ke.ClusterAuthorizationFailedError,
            ke.TransactionalIdAuthorizationFailed,
            ke.DelegationTokenAuthorizationFailed,
            ke.DelegationTokenAuthDisabled,
            ke.DelegationTokenRequestNotAllowed,
            ke.SecurityDisabled,
        ),
        AccessDeniedError,
        "Kafka at {at} does not permit this: {why}; the README of streamq-kafka lists the ACLs "
        "that are needed",
    ),
    ErrorRule(
        (ssl.SSLCertVerificationError,),
        AccessDeniedError,
        "the certificate of Kafka at {at} cannot be trusted: {why}; check "
        "STREAMQ_KAFKA_TLS_CA_FILE and the host names in STREAMQ_KAFKA_BOOTSTRAP_SERVERS",
    ),
    ErrorRule(
        (ssl.SSLError,),
        BackendUnavailableError,
        "no TLS connection with Kafka at {at}: {why}; check STREAMQ_KAFKA_SECURITY_PROTOCOL",
    ),
    ErrorRule(
        (
            ke.MessageSizeTooLargeError,
            ke.RecordListTooLargeError,
            ke.RecordTooLargeError,
        ),
        BackendError,
        "a record is larger than Kafka at {at} takes: {why}; raise max.message.bytes of the topic, "
        "or lower STREAMQ_KAFKA_BATCH_BYTES",
    ),
    ErrorRule(
        (RecordRefused,),
        BackendError,
        "Kafka at {at} refuses a record: {why}; see the settings of the topic, and what its "
        "operator has added to check records",
    ),
    ErrorRule(
        (CompressionRefused,),
        BackendError,
        "Kafka at {at} does not know the compression of a record: {why}; set another "
        "STREAMQ_KAFKA_COMPRESSION, or none",
    ),
    ErrorRule(
        (ke.InvalidTimestampError,),
        BackendError,
        "Kafka at {at} does not take the time of a record: {why}; set the clock of this machine, "
        "or message.timestamp.type=LogAppendTime of the topic",
    ),
    ErrorRule(
        (ke.UnsupportedForMessageFormatError,),
        BackendError,
        "the topic on Kafka at {at} has records of a format before Kafka 0.11, which has no "
        "headers: {why}; remove log.message.format.version",
    ),
    ErrorRule(
        (ke.CorruptRecordException,),
        BackendError,
        "a batch of records on Kafka at {at} is damaged: {why}; look into the brokers' logs, and "
        "for a fault of disk or network",
    ),
    ErrorRule(
        (ke.PolicyViolationError,),
        BackendError,
        "a policy of Kafka at {at} does not permit this: {why}; ask its operator, or set "
        "STREAMQ_KAFKA_PARTITIONS, _REPLICATION_FACTOR and _RETENTION_HOURS as it demands",
    ),
    ErrorRule(
        (
            ke.InvalidConfigurationError,
            ke.InvalidPartitionsError,
            ke.InvalidReplicationAssignmentError,
            ke.InvalidReplicationFactorError,
            ke.InvalidRequestError,
        ),
        BackendError,
        "Kafka at {at} does not take this: {why}; check STREAMQ_KAFKA_PARTITIONS, "
        "STREAMQ_KAFKA_REPLICATION_FACTOR and STREAMQ_KAFKA_RETENTION_HOURS",
    ),
    ErrorRule(
        (ke.InvalidTopicError,),
        BackendError,
        "Kafka at {at} does not take the name of the topic: {why}; set another STREAMQ_KAFKA_TOPIC",
    ),
    ErrorRule(
        (ke.UnknownError,),
        BackendError,
        "a broker of Kafka at {at} has failed at a request: {why}; its log has the reason",
    ),
    ErrorRule(
        (ke.UnsupportedCodecError,),
        BackendError,
        "a record on Kafka at {at} needs a compression library that is not installed: {why}; "
        "pip install 'streamq-kafka[compression]'",
    ),
    ErrorRule(
        (ke.KafkaStorageError, ke.LogDirNotFound),
        StorageFullError,
        "Kafka at {at} cannot use its disk: {why}; look for a full or failed disk in the brokers' "
        "logs (log.dirs)",
    ),
    ErrorRule(
        (
            ke.NotEnoughReplicasError,
            ke.NotEnoughReplicasAfterAppendError,
        ),
        BackendUnavailableError,
        "Kafka at {at} has too few replicas in sync to store anything durably: {why}; bring the "
        "missing brokers back, or lower min.insync.replicas of the topic",
    ),
    ErrorRule(
        (
            SessionLost,
            ke.OutOfOrderSequenceNumber,
            ke.DuplicateSequenceNumber,
            ke.InvalidProducerEpoch,
            ke.InvalidProducerIdMapping,
            ke.UnknownProducerId,
            ke.ProducerFenced,
            ke.ProducerClosed,
        ),
        BackendUnavailableError,
        "Kafka at {at} has ended our producer's session ({why}); the next call begins a new one",
    ),
    ErrorRule(
        (PositionBeyondEnd, ke.OffsetOutOfRangeError),
        BackendUnavailableError,
        "Kafka at {at} holds less of the partition than it did: {why}",
    ),
    ErrorRule(
        (
            ke.RequestTimedOutError,
            ke.KafkaTimeoutError,
            TimeoutError,
        ),
        BackendUnavailableError,
        "Kafka at {at} did not answer in time: {why}",
    ),
    ErrorRule(
        (Throttled, ke.QuotaViolationError),
        ThrottledError,
        "a quota of Kafka at {at} is used up: {why}; " + _QUOTAS,
    ),
    ErrorRule(
        (TokenUnavailable,),
        BackendUnavailableError,
        "no token to log in to Kafka at {at}: {why}; check the function in "
        "STREAMQ_KAFKA_SASL_TOKEN_PROVIDER",
    ),
    ErrorRule(
        (CredentialsUnusable,),
        ConfigurationError,
        "no credentials to log in to Kafka at {at}: {why}",
    ),
    ErrorRule(
        (CredentialsUnavailable,),
        BackendUnavailableError,
        "no credentials to log in to Kafka at {at}: {why}",
    ),
    ErrorRule(
        (LoginRefused,),
        BackendUnavailableError,
        "Kafka at {at} refuses the credentials that STREAMQ_KAFKA_SASL_CREDENTIALS, "
        "STREAMQ_KAFKA_SASL_PASSWORD_FILE or STREAMQ_KAFKA_SASL_TOKEN_PROVIDER returned: {why}; "
        "they are asked again",
    ),
    ErrorRule(
        (
            ke.KafkaConnectionError,
            ke.KafkaUnavailableError,
            ke.NoBrokersAvailable,
            ke.NodeNotReadyError,
            OSError,
        ),
        BackendUnavailableError,
        "cannot reach Kafka at {at} ({why}); is it running? check "
        "STREAMQ_KAFKA_BOOTSTRAP_SERVERS, and STREAMQ_KAFKA_SECURITY_PROTOCOL if Kafka closes the "
        "connection",
    ),
    ErrorRule(
        (
            ke.BrokerNotAvailableError,
            ke.Cancelled,
            ke.CorrelationIdError,
            ke.GroupCoordinatorNotAvailableError,
            ke.GroupLoadInProgressError,
            ke.KafkaProtocolError,
            ke.LeaderNotAvailableError,
            ke.ListenerNotFound,
            ke.MetadataEmptyBrokerList,
            ke.NotControllerError,
            ke.NotCoordinatorForGroupError,
            ke.NotLeaderForPartitionError,
            ke.ReassignmentInProgress,
            ke.RebalanceInProgressError,
            ke.ReplicaNotAvailableError,
            ke.StaleControllerEpochError,
            ke.StaleLeaderEpochCodeError,
            ke.StaleMetadata,
            ke.TooManyInFlightRequests,
            ke.UnknownTopicOrPartitionError,
        ),
        BackendUnavailableError,
        "Kafka at {at} cannot serve now: {why}",
    ),
    ErrorRule(
        (ke.ConsumerStoppedError,),
        ClosedError,
        "this kafka queue has been closed",
    ),
    ErrorRule(
        (ke.IncompatibleBrokerVersion, ke.UnrecognizedBrokerVersion, ke.UnsupportedVersionError),
        BackendError,
        "Kafka at {at} is too old or too new for aiokafka: {why}",
    ),
)


_IN_OWN_WORDS = (CredentialsUnavailable, LoginRefused, Throttled)


def reason_of(error: Exception) -> str:
    """Return an exception's own words, in one line."""
    if isinstance(error, TopicMissing):
        return error.topic
    if isinstance(error, _IN_OWN_WORDS):
        return ", ".join(str(part) for part in error.args)
    if isinstance(error, ke.IllegalSaslStateError):
        return "it expects none on this port"
    if isinstance(error, OSError):
        verdict: str | None = getattr(error, "verify_message", None)
        return verdict or error.strerror or str(error) or type(error).__name__
    # Not str(): aiokafka's base class of all answers has none.
    text = ", ".join(str(part) for part in error.args) or getattr(error, "description", "")
    name = type(error).__name__
    return f"{name}: {text}" if text else name


_TABLE = ErrorTable(
    BACKEND,
    _RULES,
    client=(*exception_classes(ke), OSError),
    reason=reason_of,
    otherwise="Kafka at {at} answered: {why}",
)


def translator(address: str) -> Callable[[Exception, str | None], StreamqError | None]:
    """Return the function that turns errors of the brokers at an address into streamq's errors.

    Args:
        address: The configured brokers, for messages.
    """
    return functools.partial(_TABLE.translate, at=address)


def kafka_errors(address: str, stream: object = None) -> translated_errors:
    """Return a context manager that turns every error of the client into one of streamq's."""
    return translated_errors(translator(address), stream)
