"""Checks, when a worker starts, whether what its integrations publish is routed.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from streamq._errors import CapabilityError
from streamq.driver import ChunkQueue

from ._protocol import check_protocol

_logger = logging.getLogger("streamq.temporal")


@dataclass(frozen=True, slots=True)
class Integration:
    """An integration that publishes to Workflow Streams.

    Attributes:
        name: Its name.
        distribution: Its package.
        modules: Where its activities are defined; a part of the SDK in older versions.
        tested: Version that the tests run with; ``None`` if there is no test.
    """

    name: str
    distribution: str
    modules: tuple[str, ...]
    tested: str | None

    @property
    def installed(self) -> str | None:
        """Its version; ``None`` if it is a part of the SDK."""
        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return None

    @property
    def is_tested(self) -> bool:
        """Whether the tests run with its version, apart from the last number of that."""
        installed = self.installed
        return None not in (installed, self.tested) and f"{installed}.".startswith(
            f"{self.tested}."
        )

    def __str__(self) -> str:
        installed = self.installed
        return f"{self.name} ({self.distribution} {installed})" if installed else self.name


INTEGRATIONS = (
    Integration(
        "OpenAI Agents",
        "temporalio-openai-agents",
        ("temporalio.openai_agents", "temporalio.contrib.openai_agents"),
        "1.1",
    ),
    Integration("Pydantic AI", "pydantic-ai-slim", ("pydantic_ai.durable_exec.temporal",), "2.68"),
    Integration(
        "Google GenAI",
        "temporalio-google-genai",
        ("temporalio.google_genai", "temporalio.contrib.google_genai"),
        "0.1",
    ),
    Integration(
        "LangGraph",
        "temporalio-langgraph",
        ("temporalio.langgraph", "temporalio.contrib.langgraph"),
        "0.1",
    ),
    Integration(
        "Deep Agents",
        "temporalio-deepagents",
        ("temporalio.deepagents", "temporalio.contrib.deepagents"),
        None,
    ),
    Integration(
        "Google ADK",
        "temporalio-google-adk",
        ("temporalio.google_adk", "temporalio.contrib.google_adk_agents"),
        None,
    ),
    Integration(
        "Strands Agents",
        "temporalio-strands-agents",
        ("temporalio.strands_agents", "temporalio.contrib.strands"),
        None,
    ),
)


def integrations_of(activities: Iterable[Callable[..., Any]]) -> list[Integration]:
    """Return the integrations that these activities belong to."""
    modules = {module for each in activities for module in _modules(each)}
    return [
        each
        for each in INTEGRATIONS
        if any(f"{module}.".startswith(f"{own}.") for module in modules for own in each.modules)
    ]


def warn_of_integrations(activities: Iterable[Callable[..., Any]]) -> None:
    """Warn of integrations on a worker that does not route."""
    for each in integrations_of(activities):
        _logger.warning(
            "this worker runs activities of %s. What they stream goes through Temporal's Workflow "
            "Streams and the workflow's history, and no reader of streamq gets it; to stream it "
            "through streamq, pass StreamqPlugin(route_workflow_streams=True)",
            each,
        )


async def check_routing(queue: ChunkQueue, activities: Iterable[Callable[..., Any]]) -> None:
    """Check that what is published to Workflow Streams can be routed to a queue.

    An integration of a version that the tests do not run with is a warning. It is routed as long as
    it publishes with the SDK's client, which is what is checked.

    Raises:
        ConfigurationError: The SDK publishes in a way that is not known.
        CapabilityError: The backend does not fence, or has no replay.
    """
    missing = [each for each in ("fenced", "replay") if not getattr(queue.capabilities, each)]
    if missing:
        raise CapabilityError(
            f"route_workflow_streams: backend {queue.backend!r} does not offer "
            f"{' and '.join(missing)}, without which several activities cannot share a stream; "
            "choose another backend",
            backend=queue.backend,
        )
    await check_protocol()
    for each in integrations_of(activities):
        if each.is_tested:
            _logger.info("what %s publishes is routed to backend %s", each, queue.backend)
        else:
            _logger.warning(
                "what %s publishes is routed to backend %s, and streamq is tested with version %s "
                "of it: look at the first streams",
                each,
                queue.backend,
                each.tested or "none",
            )


def _modules(activity: Callable[..., Any]) -> Iterable[str]:
    yield getattr(activity, "__module__", None) or ""
    owner = getattr(activity, "__self__", None)
    if owner is not None:
        yield type(owner).__module__
