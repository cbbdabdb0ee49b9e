"""Turns the errors of aiokafka and of the network into streamq's errors.

Design: docs/design/kafka.md.
"""

from __future__ import annotations

import inspect
import ssl
from types import TracebackType

import aiokafka.errors as ke

from streamq.driver import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    ClosedError,
    StorageFullError,
    StreamqError,
)

from ._naming import BACKEND


class TopicMissing(ke.KafkaError):  # type: ignore[misc]
    """A topic does not exist."""

    def __init__(self, topic: str) -> None:
        super().__init__(topic)
        self.topic = topic


class TokenUnavailable(ke.NodeNotReadyError):  # type: ignore[misc]
    """The application's function returned no token; for aiokafka the broker is not ready."""


class SessionLost(ke.KafkaError):  # type: ignore[misc]
    """An idempotent producer cannot continue; the next call starts a new one."""


class PositionBeyondEnd(ke.KafkaError):  # type: ignore[misc]
    """A partition is shorter than it was: its broker was replaced, or has lost data."""


# First match wins, so that subclasses come before their bases.
_RULES: tuple[tuple[tuple[type[Exception], ...], type[StreamqError], str], ...] = (
    (
        (TopicMissing,),
        BackendError,
        "topic {why!r} does not exist on Kafka at {at}; create it, or let `streamq doctor "
        "--create` do it, or set STREAMQ_KAFKA_TOPIC",
    ),
    (
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
    (
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
    (
        (ssl.SSLCertVerificationError,),
        AccessDeniedError,
        "the certificate of Kafka at {at} cannot be trusted: {why}; check "
        "STREAMQ_KAFKA_TLS_CA_FILE and the host names in STREAMQ_KAFKA_BOOTSTRAP_SERVERS",
    ),
    (
        (ssl.SSLError,),
        BackendUnavailableError,
        "no TLS connection with Kafka at {at}: {why}; check STREAMQ_KAFKA_SECURITY_PROTOCOL",
    ),
    (
        (
            ke.MessageSizeTooLargeError,
            ke.RecordListTooLargeError,
            ke.RecordTooLargeError,
        ),
        BackendError,
        "a record is larger than Kafka at {at} takes: {why}; raise max.message.bytes of the topic, "
        "or lower STREAMQ_KAFKA_BATCH_BYTES",
    ),
    (
        (ke.UnsupportedCodecError,),
        BackendError,
        "a record on Kafka at {at} needs a compression library that is not installed: {why}; "
        "pip install 'streamq-kafka[compression]'",
    ),
    (
        (ke.KafkaStorageError, ke.LogDirNotFound),
        StorageFullError,
        "Kafka at {at} cannot write to its disk: {why}",
    ),
    (
        (
            ke.NotEnoughReplicasError,
            ke.NotEnoughReplicasAfterAppendError,
        ),
        BackendUnavailableError,
        "Kafka at {at} has too few replicas in sync to store anything durably: {why}",
    ),
    (
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
    (
        (PositionBeyondEnd, ke.OffsetOutOfRangeError),
        BackendUnavailableError,
        "Kafka at {at} holds less of the partition than it did: {why}",
    ),
    (
        (
            ke.RequestTimedOutError,
            ke.KafkaTimeoutError,
            TimeoutError,
        ),
        BackendUnavailableError,
        "Kafka at {at} did not answer in time: {why}",
    ),
    (
        (TokenUnavailable,),
        BackendUnavailableError,
        "no token to log in to Kafka at {at}: {why}; check the function in "
        "STREAMQ_KAFKA_SASL_TOKEN_PROVIDER",
    ),
    (
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
    (
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
    (
        (ke.ConsumerStoppedError,),
        ClosedError,
        "this Kafka queue is closed",
    ),
    (
        (ke.IncompatibleBrokerVersion, ke.UnrecognizedBrokerVersion, ke.UnsupportedVersionError),
        BackendError,
        "Kafka at {at} is too old or too new for aiokafka: {why}",
    ),
)
_CLIENT_CLASSES = tuple(
    found for found in vars(ke).values() if inspect.isclass(found) and issubclass(found, Exception)
)


def closed_error() -> ClosedError:
    """Return the error for calls after the queue has been closed."""
    return ClosedError("this Kafka queue is closed", backend=BACKEND)


def to_streamq(error: Exception, address: str, stream: str | None = None) -> StreamqError | None:
    """Return streamq's error for an error of the client or the network; ``None`` for others."""
    if not isinstance(error, (*_CLIENT_CLASSES, OSError)):
        return None
    why = _why(error)
    for classes, ours, message in _RULES:
        if isinstance(error, classes):
            return ours(message.format(at=address, why=why), backend=BACKEND, stream=stream)
    return BackendError(f"Kafka at {address} answered: {why}", backend=BACKEND, stream=stream)


class kafka_errors:
    """Context manager that turns every error of the client into one of streamq's.

    It is a class and not a generator because every append and read enters it.
    """

    __slots__ = ("_address", "_stream")

    def __init__(self, address: str, stream: object = None) -> None:
        self._address = address
        self._stream = stream

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if exc is None or isinstance(exc, StreamqError) or not isinstance(exc, Exception):
            return
        stream = None if self._stream is None else str(self._stream)
        ours = to_streamq(exc, self._address, stream)
        if ours is not None:
            raise ours from exc


def _why(error: Exception) -> str:
    if isinstance(error, TopicMissing):
        return error.topic
    if isinstance(error, ke.IllegalSaslStateError):
        return "it expects none on this port"
    if isinstance(error, OSError):
        verdict: str | None = getattr(error, "verify_message", None)
        return verdict or error.strerror or str(error) or type(error).__name__
    # Not str(): aiokafka's base class of all answers has none.
    text = ", ".join(str(part) for part in error.args) or getattr(error, "description", "")
    name = type(error).__name__
    return f"{name}: {text}" if text else name
