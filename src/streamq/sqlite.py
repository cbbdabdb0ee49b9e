"""The SQLite driver: one file, no server, any number of processes on one machine.

Design: docs/design/sqlite.md.
"""

from ._sqlite._driver import SqliteDriver
from ._sqlite._settings import SqliteSettings

__all__ = ["SqliteDriver", "SqliteSettings"]
