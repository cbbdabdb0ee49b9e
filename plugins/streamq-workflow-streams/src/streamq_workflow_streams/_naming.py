"""Maps streams to workflow ids and memos of their hosts.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

import hashlib
import json

from temporalio.api.common.v1 import Memo

from streamq.driver import StreamId, skip_foreign, stored_stream

from ._errors import BACKEND
from ._protocol import json_payload

_LONGEST_ID_BYTES = 255  # limit of some databases that Temporal uses
_HASHED = "~"
_MEMO = "streamq_stream"


class HostNames:
    """Workflow ids of the hosts of streams and tenants.

    Args:
        prefix: Beginning of every workflow id.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def tenant(self, tenant: str) -> str:
        """Return the beginning of the workflow ids of all hosts of a tenant."""
        return f"{self._prefix}/{tenant}/"

    def workflow_id(self, stream: StreamId) -> str:
        """Return the workflow id of a stream's host, with a hash in place of a long name."""
        start = self.tenant(stream.tenant)
        found = start + stream.name
        if len(found.encode()) > _LONGEST_ID_BYTES or stream.name.startswith(_HASHED):
            return start + _HASHED + hashlib.sha256(stream.name.encode()).hexdigest()
        return found


def memo_of(stream: StreamId) -> Memo:
    """Return the memo of a stream's host, which has the whole name."""
    return Memo(fields={_MEMO: json_payload([stream.tenant, stream.name])})


def stream_of(memo: Memo, workflow_id: str) -> StreamId | None:
    """Return the stream that a memo names; ``None``, and a line in the log, if it names none.

    Args:
        memo: The memo.
        workflow_id: Id of the workflow that has it, for the log.
    """
    place = f"workflow {workflow_id}"
    try:
        tenant, name = json.loads(memo.fields[_MEMO].data)
    except (ValueError, TypeError):
        skip_foreign(BACKEND, place, "its memo names no stream")
        return None
    return stored_stream(tenant, name, backend=BACKEND, place=lambda: place)
