"""Stream names that are hard for backends."""

from __future__ import annotations

# Temporal takes every text of 1 to 1,000 bytes in UTF-8 as an id (tried on server 1.32), so that
# names have every character, whatever this version of Python knows of it.
TRICKY_NAMES = (
    "plain",
    "Plain",
    "a%b",
    "a_b",
    "aXb",
    "a*b",
    "a?b",
    "a[b]c",
    "a\\b",
    "a'b\"c",
    "{a}b",
    "a:b",
    "a/b/c",
    "/a",
    "a/",
    " a  b ",
    "größe 流れ 🌊",
    "a#b",
    "a%2Fb",
    "~a",
    "..",
    "../.a",
    "\u3000",
    "a\nb\r\tc\n",
    "a\0b",
    "\0",
    "\x1b[31m\x7f\x85",
    "\u202e\u200fa\ufeff",
    "\u0378\ufffe\U0010ffff",  # the first is not assigned, yet
    "e\u0301",
    "é",
    "n" * 1024,
    "é" * 512,
    "n" * 1536,
    "é" * 768,
    "/" * 1024,
)
