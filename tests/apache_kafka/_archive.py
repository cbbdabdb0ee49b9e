"""The classes that Kafka needs in the form that the JVM loads at once: a start takes a third."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from ._jars import KAFKA_VERSION, cache_directory, class_path, find_java


def shared_archive(make: Callable[[Path], None]) -> Path:
    """Return the class data archive for this Java and this Kafka, made at the first call.

    It takes 50 MB in the user's cache directory. A JVM that cannot use it goes on without.

    Args:
        make: Writes it to a path.
    """
    java = Path(find_java()).resolve()
    this = hashlib.sha256(f"{java} {java.stat().st_mtime_ns} {class_path()}".encode()).hexdigest()
    cache = cache_directory()
    path = cache / f"kafka-{KAFKA_VERSION}-{this[:12]}.jsa"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Another process may be about the same: whoever is last wins, and nobody sees a half.
        partial = path.with_suffix(f".{os.getpid()}")
        try:
            make(partial)
            if partial.exists():
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return path
