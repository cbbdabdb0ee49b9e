"""Returns the addresses of executions in Temporal's UI.

Design: docs/design/page.md.
"""

from __future__ import annotations

from urllib.parse import quote

from streamq._errors import ConfigurationError
from streamq._executions import Execution
from streamq._settings import Settings

_PARTS = {"workflow": ("workflows", "history"), "activity": ("activities", "details")}


class TemporalPages:
    """Knows where Temporal's UI shows an execution, if a setting says where the UI is.

    Args:
        settings: The address of the UI, and the namespace.
    """

    def __init__(self, settings: Settings) -> None:
        self._root = settings.gateway_temporal_ui
        if self._root:
            self._root += f"/namespaces/{quote(_namespace(settings), safe='')}"

    def address(self, execution: Execution | None) -> str | None:
        """Return the address of an execution; ``None`` without one, or without the setting."""
        if execution is None or not self._root:
            return None
        folder, view = _PARTS[execution.kind]
        return f"{self._root}/{folder}/{quote(execution.id, safe='')}/{execution.run_id}/{view}"


def _namespace(settings: Settings) -> str:
    """Return the namespace that Temporal's own configuration may give, too."""
    try:
        return settings.temporal_target.resolve().namespace
    except (ConfigurationError, ImportError):  # whoever cancels gets the reason
        return settings.temporal_namespace
