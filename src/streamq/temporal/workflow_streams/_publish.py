"""Runs ``streamq.publish``: appends the items that a workflow publishes to its log."""

from __future__ import annotations

from temporalio import activity

from streamq._errors import StreamqError
from streamq.driver_parts._cleanup import to_the_end
from streamq.temporal._failure import application_error
from streamq.temporal.activities._context import activity_context

from ._items import PublishRequest
from ._publication import Publication

PUBLISH_ACTIVITY = "streamq.publish"


@activity.defn(name=PUBLISH_ACTIVITY)
async def publish(request: PublishRequest) -> None:
    """Append items to the log of the workflow that scheduled this activity.

    Repeating it is harmless.

    Raises:
        ApplicationError: Its type is the name of the streamq error.
    """
    context, info = activity_context(), activity.info()
    publication = Publication(
        context,
        info,
        call=f"{request.publisher} {request.first}",
        # The previous run may have been sending them when it continued as new.
        may_repeat=request.publisher != f"workflow {info.workflow_run_id}",
    )
    try:
        items = [(entry.topic, entry.payload()) for entry in request.items]
        await publication.write_items(
            request.publisher, request.first, items, topics=request.topics
        )
    except StreamqError as exc:
        raise application_error(exc) from exc
    finally:
        await to_the_end(publication.aclose())
