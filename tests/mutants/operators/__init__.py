"""Defines the operators: each makes one kind of small change, of which a module has many places.

Design: docs/design/testing.md.
"""

from . import conditions, statements, texts, values
from .registry import OPERATORS, Operator

__all__ = ["OPERATORS", "Operator", "conditions", "statements", "texts", "values"]
