"""Finds out, before a stream is sealed, how Temporal will record a result or a failure.

Design: docs/design/attempts.md.
"""

from __future__ import annotations

from datetime import timedelta
from weakref import WeakKeyDictionary

from temporalio import activity
from temporalio.api.common.v1 import Payloads
from temporalio.api.failure.v1 import Failure
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.converter import ActivitySerializationContext, DataConverter
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.service import RPCError

from streamq._errors import error_text
from streamq.temporal._failure import is_non_retryable, shown_to_readers
from streamq.temporal._rpc import connecting

TOO_LARGE = "PayloadsTooLarge"
"""Type of the failure for a result that is too large; the SDK's own failure has the same."""

_DEFAULT_LIMIT = 2 * 1024 * 1024
_ASKS_ABOVE = 128 * 1024
_RPC_TIMEOUT = timedelta(seconds=5)
_TEXT_CHARS = 2_000

_limits: WeakKeyDictionary[Client, int] = WeakKeyDictionary()


class Recording:
    """Encodes what an activity ends with, as the worker will do.

    The worker encodes it once more. That is bounded: a result that exceeds the limit of the
    namespace is encoded once and refused, and nothing is put into external storage here.

    Args:
        client: The worker's client.
        info: The attempt.
    """

    def __init__(self, client: Client, info: activity.Info) -> None:
        self._client = client
        self._namespace = info.namespace
        self._context = ActivitySerializationContext(
            namespace=info.namespace,
            activity_id=info.activity_id,
            activity_type=info.activity_type,
            activity_task_queue=info.task_queue,
            workflow_id=info.workflow_id,
            workflow_type=info.workflow_type,
            is_local=info.is_local,
        )

    async def check_result(self, result: object) -> None:
        """Check that Temporal will have the result.

        Raises:
            ApplicationError: It is larger than Temporal stores. Retryable, as the SDK's failure is.
            Exception: The data converter cannot encode it; the worker would raise the same.
        """
        converter = self._converter()
        payloads = converter.payload_converter.to_payloads([result])
        if converter.payload_codec is not None:
            payloads = await converter.payload_codec.encode(payloads)
        size = Payloads(payloads=payloads).ByteSize()
        if getattr(converter, "external_storage", None) is not None:
            return  # large values go there
        if size > _ASKS_ABOVE and size > (limit := await self._limit()):
            raise ApplicationError(
                f"the result of the activity takes {size} bytes, more than the {limit} that "
                f"Temporal stores in namespace {self._namespace!r}; send it as chunks, or store it "
                "elsewhere and return where it is",
                type=TOO_LARGE,
            )

    async def sendable(self, error: BaseException) -> tuple[BaseException, BaseException]:
        """Return the failure to raise for an error, and the one that Temporal will record for it.

        Both are the error itself, if it can be encoded and is not too large. Otherwise they are a
        failure of the same type with its text alone, which is retried as the error would be.
        """
        problem = await self._problem(error)
        if problem is None:
            return error, error
        kind, text = shown_to_readers(error)
        failure = ApplicationError(
            f"{text[:_TEXT_CHARS]} [not sent as it is: {problem[:_TEXT_CHARS]}]",
            type=kind,
            non_retryable=is_non_retryable(error),
            next_retry_delay=getattr(error, "next_retry_delay", None),
            category=getattr(error, "category", ApplicationErrorCategory.UNSPECIFIED),
        )
        if await self._problem(failure) is None:
            return failure, failure
        # Then the worker sends a failure without type, which is always retried.
        return failure, ApplicationError(failure.message)

    async def _problem(self, error: BaseException) -> str | None:
        """Return why a failure cannot be sent to Temporal; ``None`` if it can."""
        converter, failure = self._converter(), Failure()
        try:
            converter.failure_converter.to_failure(error, converter.payload_converter, failure)
            if converter.payload_codec is not None:
                await converter.payload_codec.encode_failure(failure)
        except Exception as exc:  # noqa: BLE001 - converters and codecs raise errors of any class
            return f"{type(exc).__name__}: {error_text(exc)}"
        size = failure.ByteSize()
        if size > _ASKS_ABOVE and size > (limit := await self._limit()):
            return f"it takes {size} bytes, and Temporal stores {limit}"
        return None

    def _converter(self) -> DataConverter:
        return self._client.data_converter.with_context(self._context)

    async def _limit(self) -> int:
        """Return the most bytes of a result or failure in the namespace; the default if unknown."""
        known = _limits.get(self._client)
        if known is not None:
            return known
        request = DescribeNamespaceRequest(namespace=self._namespace)
        try:
            with connecting():
                found = await self._client.workflow_service.describe_namespace(
                    request, timeout=_RPC_TIMEOUT
                )
        except RPCError:
            return _DEFAULT_LIMIT
        limits = getattr(found.namespace_info, "limits", None)
        limit = int(getattr(limits, "blob_size_limit_error", 0)) or _DEFAULT_LIMIT
        _limits[self._client] = limit
        return limit
