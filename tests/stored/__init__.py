"""Keeps what an earlier streamq stored on every backend, for tests that read it with this one.

Design: docs/design/testing.md.
"""
