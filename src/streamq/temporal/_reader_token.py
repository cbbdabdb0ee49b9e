"""Makes the token with which a browser reads what a workflow or an activity streams.

Design: docs/design/access.md.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from temporalio.client import ActivityHandle, Client, WorkflowHandle

from streamq._settings import Settings, load_settings

from ._find_name import find_stream_name
from ._names import DEFAULT_TOPIC


@dataclass(frozen=True, slots=True)
class ReaderToken:
    """A stream, and a token to read it.

    Attributes:
        tenant: Whose stream it is.
        stream: Name of the stream.
        token: The token, for all streams of this execution. Secret: it is not in the ``repr``.
        expires_in_seconds: How long it is valid; get another one before.
    """

    tenant: str
    stream: str
    token: str = field(repr=False)
    expires_in_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready data, the answer for the browser that asked."""
        return {
            "tenant": self.tenant,
            "stream": self.stream,
            "token": self.token,
            "expires_in_seconds": self.expires_in_seconds,
        }


async def reader_token(
    execution: WorkflowHandle[Any, Any] | ActivityHandle[Any] | str,
    topic: str = DEFAULT_TOPIC,
    *,
    subject: str,
    actions: Collection[str] = ("read",),
    lifetime: timedelta | None = None,
    client: Client | None = None,
    settings: Settings | None = None,
) -> ReaderToken:
    """Return the name of a stream and a token to read it, as a browser needs both.

    The token permits the actions on all streams of this workflow, with the runs that continue it,
    or of this activity: not on those of a later workflow with the same id. Needs the extra
    ``gateway``, and the key of :func:`streamq.access.mint_token`.

    Args:
        execution: As for :func:`find_stream_name`: no request is made for a handle from the start
            of a new workflow.
        topic: Which of its streams.
        subject: Who gets the token, for quotas, revocation and logs.
        actions: What it permits; by default less than :func:`streamq.access.mint_token` does,
            which gives ``cancel``, too.
        lifetime: How long it is valid; by default as :func:`streamq.access.mint_token` has it.
        client: A client of the workflow's namespace; needed with an id.
        settings: By default the configured ones.

    Raises:
        ConfigurationError: No key is configured, or an argument cannot be used.
        StreamqError: As for :func:`find_stream_name`.
    """
    # They need the extra `gateway`, which workers need not have.
    from streamq.access import DEFAULT_LIFETIME, mint_token

    valid = DEFAULT_LIFETIME if lifetime is None else lifetime
    chosen = settings or load_settings()
    name = await find_stream_name(execution, topic, client=client, settings=chosen)
    token = mint_token(
        prefix=name.rpartition("/")[0],
        subject=subject,
        actions=actions,
        lifetime=valid,
        settings=chosen,
    )
    return ReaderToken(chosen.tenant, name, token, valid.total_seconds())
