"""Reads streams through a gateway, without credentials of the backend.

Design: docs/design/reading-over-http.md.
"""
