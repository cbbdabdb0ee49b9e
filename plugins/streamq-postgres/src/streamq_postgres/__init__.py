"""PostgreSQL backend for streamq: rows of two tables, found by stream and by place.

Design: docs/design/postgres.md.
"""

from ._driver import PostgresDriver
from ._settings import PostgresSettings

__all__ = ["PostgresDriver", "PostgresSettings"]
