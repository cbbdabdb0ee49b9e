"""Redis and Valkey backend for streamq: one Redis Stream per stream.

Design: docs/design/redis.md.
"""

from ._driver import RedisDriver
from ._settings import RedisSettings

__all__ = ["RedisDriver", "RedisSettings"]
