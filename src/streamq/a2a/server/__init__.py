"""Serves a Temporal agent to A2A clients, from replicas that own nothing.

Needs ``a2a-sdk`` (``pip install "streamq[a2a]"``). :class:`Agent` declares one, :func:`create_app`
is the application, :func:`create_routes` are routes for an application of one's own.

* ``_agent``: the declaration; ``_card``: what clients get of it;
* ``_scope``: whose task it is, and its id; ``_access``: who sends a request, and what it may do;
* ``_fold``: a task as its log describes it; ``_log``: reading the log;
* ``_directory``: what Temporal knows of tasks; ``_push_directory``: and of their receivers;
* ``_lookup``: the task that a request names; ``_sending``, ``_watching``, ``_cancelling``,
  ``_listing``, ``_push``: the operations; ``_guarding``: which errors of them clients see;
* ``_event_ids``: ids of server-sent events, an extension;
* ``_handler``: the operations as the SDK's interface; ``_app``, ``_checks``: HTTP; ``_grpc``: gRPC.

Design: docs/design/a2a.md.
"""

from ._agent import Agent
from ._app import create_app, create_routes
from ._grpc import add_to_grpc_server
from ._handler import TaskHandler

__all__ = ["Agent", "TaskHandler", "add_to_grpc_server", "create_app", "create_routes"]
