"""Types of the fixtures that run workers and start workflows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from temporalio.client import WorkflowHandle
from temporalio.worker import Worker


class Run(Protocol):
    def __call__(self, *activities: Callable[..., Any]) -> AbstractAsyncContextManager[Worker]: ...


class Start(Protocol):
    async def __call__(
        self, activity: str, *args: object, **options: Any
    ) -> WorkflowHandle[Any, Any]: ...
