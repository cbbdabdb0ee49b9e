"""Stream names that are hard for backends."""

from __future__ import annotations

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
    "n" * 1024,
    "é" * 512,
)
