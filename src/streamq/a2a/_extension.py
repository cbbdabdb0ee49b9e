"""Names the extension of A2A in which events of server-sent streams have ids.

Design: docs/design/a2a.md.
"""

EVENT_IDS = "urn:streamq:a2a:event-ids:v1"
"""URI of the extension, in the card and in ``A2A-Extensions``."""

LAST_EVENT_ID = "Last-Event-ID"
"""Header, or part of the query, with the last event that a client has seen."""
