"""Runs ``streamq.publish``: appends the items that a workflow publishes to its log."""

from __future__ import annotations

import base64

from temporalio import activity
from temporalio.api.common.v1 import Payload

from streamq._errors import StreamqError
from streamq.temporal._failure import application_error
from streamq.temporal._names import stream_name
from streamq.temporal.activities._context import ActivityContext, activity_context
from streamq.temporal.activities._owner import stream_owner_of

from ._items import TOPIC, Numbered, PublishRequest
from ._shared_log import SharedLog

PUBLISH_ACTIVITY = "streamq.publish"


@activity.defn(name=PUBLISH_ACTIVITY)
async def publish(request: PublishRequest) -> None:
    """Append items to the log of the workflow that scheduled this activity.

    Repeating it is harmless.

    Raises:
        ApplicationError: Its type is the name of the streamq error.
    """
    context = activity_context()
    codec = activity.client().data_converter.payload_codec
    try:
        log = SharedLog(context.queue, context.settings, await _name(context))
        try:
            items = [
                Numbered(
                    entry.topic,
                    Payload.FromString(base64.b64decode(entry.data)),
                    request.publisher,
                    number,
                )
                for number, entry in enumerate(request.items, request.first)
            ]
            await log.write([await item.encode(codec) for item in items])
        finally:
            await log.aclose()
    except StreamqError as exc:
        raise application_error(exc) from exc


async def _name(context: ActivityContext) -> str:
    owner = await stream_owner_of(activity.info(), context.origin, context.client, context.settings)
    return stream_name(*owner, TOPIC)
