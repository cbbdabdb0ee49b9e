"""Masks credentials in text that goes into messages and logs.

Design: docs/design/configuration.md.
"""

from __future__ import annotations

import re

# user:password@host, with or without a scheme. A password may contain slashes; a comma ends it,
# since several addresses may follow one another.
_CREDENTIALS = re.compile(r"((?:\w+://)?)[^\s/,'\"]*:[^\s,'\"]*@")


def mask_credentials(text: str) -> str:
    """Return text with ``***`` in place of every ``user:password`` before an ``@``."""
    return _CREDENTIALS.sub(r"\1***@", text)
