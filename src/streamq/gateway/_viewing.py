"""Knows what people see of streams beside their events: where each stands, and Temporal's UI.

Design: docs/design/page.md.
"""

from __future__ import annotations

from streamq._settings import Settings

from ._questions import Questions
from ._stream_details import StreamsDetails
from ._temporal_pages import TemporalPages


class Viewing:
    """What one gateway knows for those who look at streams.

    Args:
        questions: Asks the backend, in turn for each client.
        settings: Where Temporal's UI is.
        brief_settings: How long a question to the backend may take.
    """

    def __init__(self, questions: Questions, settings: Settings, brief_settings: Settings) -> None:
        self.details = StreamsDetails(questions, brief_settings)
        """Keeps where listed streams stand."""
        self.temporal_pages = TemporalPages(settings)
        """Knows where Temporal's UI shows an execution."""
