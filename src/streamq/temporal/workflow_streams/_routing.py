"""Routes what activities publish through Temporal to the queue.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from temporalio.client import Client, Interceptor, OutboundInterceptor, SignalWorkflowInput
from temporalio.service import RPCError, RPCStatusCode

from streamq._errors import StreamqError, error_text
from streamq.temporal._failure import application_error

from ._protocol import PUBLISH_SIGNAL, batch_of
from ._publication import publishing


class RoutingInterceptor(Interceptor):
    """Takes the signals by which an activity publishes to its own workflow.

    Everything that publishes with the SDK's ``WorkflowStreamClient`` sends this signal, whichever
    module it is in. Other signals, and those to other workflows, are sent.
    """

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        """Return the interceptor of a client's calls."""
        return _Outbound(super().intercept_client(next))


class _Outbound(OutboundInterceptor):
    async def signal_workflow(self, input: SignalWorkflowInput) -> None:
        publication = publishing.get()
        if (
            input.signal != PUBLISH_SIGNAL
            or publication is None
            or not publication.takes(input.id, input.run_id)
        ):
            await super().signal_workflow(input)
            return
        try:
            await publication.write_batch(batch_of(input.args))
        except StreamqError as exc:
            if exc.retryable:
                # The SDK's publisher keeps the batch, and goes on, after this error only.
                raise RPCError(error_text(exc), RPCStatusCode.UNAVAILABLE, b"") from exc
            raise application_error(exc) from exc


def with_routing(interceptors: Sequence[Interceptor]) -> list[Interceptor]:
    """Return the interceptors of a client with one that routes."""
    found = list(interceptors)
    is_routed = any(isinstance(each, RoutingInterceptor) for each in found)
    return found if is_routed else [*found, RoutingInterceptor()]


def routed_client(client: Client) -> Client:
    """Return a client of the same connection that routes; the same client if it does so already."""
    found = client.config(active_config=True)["interceptors"]
    if len(with_routing(found)) == len(found):
        return client
    config = client.config()
    config["interceptors"] = with_routing(config["interceptors"])
    return Client(**config)
