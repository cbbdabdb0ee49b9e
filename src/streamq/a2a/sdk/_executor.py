"""Runs a workflow as the executor of the SDK's handler, and forwards what its log has.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.context import ServerCallContext
from a2a.server.events import EventQueue
from a2a.types.a2a_pb2 import Message, Task, TaskArtifactUpdateEvent, TaskState
from a2a.utils.errors import InternalError, UnsupportedOperationError

from streamq._errors import StreamqError
from streamq.a2a.server._agent import Agent
from streamq.a2a.server._directory import TaskDirectory, TaskPlace
from streamq.a2a.server._fold import TaskEvent, TaskFold
from streamq.a2a.server._log import TaskLogs
from streamq.a2a.server._resources import Resources, server_logger
from streamq.a2a.server._scope import Scope
