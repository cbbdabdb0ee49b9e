"""Runs the host workflow, which keeps one stream in its memory and its history.

* ``_workflow``: the workflow. It runs on Temporal workers.
* ``_worker``: a worker that runs it.
* ``_command``: ``python -m streamq_workflow_streams``, a process with such a worker.

Design: docs/design/workflow-streams.md.
"""
