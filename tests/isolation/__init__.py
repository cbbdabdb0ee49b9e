"""Runs the rights that ``docs/tenants.md`` lists, for the tests of each backend.

Such a test gives a tenant the rights of the page, word for word, on a real server. Then the tenant
does everything that it needs, and finds nothing of another tenant.
"""

from ._page import code_blocks
from ._tenant import finds_nothing, reveals_nothing, tells_whole_story, written_stream

__all__ = ["code_blocks", "finds_nothing", "reveals_nothing", "tells_whole_story", "written_stream"]
