"""Holds ``streamq.Stream``, the workflow that runs any streaming activity by name.

* ``_workflow``: the workflow;
* ``_request``: its input, result, progress and state, and their checks;
* ``_delivery``: forwards the stream, reports progress and sums up;
* ``_schema``: the JSON Schema of its inputs and results.

Design: docs/design/temporal-generic.md.
"""
