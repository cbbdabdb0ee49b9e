"""Encodes what is stored: values to bytes, records in wire format, and codecs around records.

Design: docs/design/values.md.
"""
