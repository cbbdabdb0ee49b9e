"""Runs A2A tasks on a worker: the workflow's side, and the activities that write a task's log.

* ``_task``, ``_workflow``, ``_input``: workflow code;
* ``_collect``, ``_tell``, ``_writing``: activities;
* ``_push_workflow``, ``_push``, ``_push_events``, ``_push_sender``: push notifications;
* ``_merge``: what both streams become, as a pure machine;
* ``_plugin``: the worker.

Nothing here imports ``a2a-sdk``.

Design: docs/design/a2a.md.
"""
