"""One replica of a server that keeps the A2A SDK's own handler; start as many as you like.

    client ---- replica 1: the SDK's handler ---- WorkflowExecutor ---- workflow, activity
                      |                                                      |
                      +--- QueueTaskStore, QueueTaskEventStream ---+         | its log
                                                                   |         |
    client ---- replica 2 -------------------------------------- one queue --+

Needs a Temporal server. In two terminals, in the same directory:

    python docs/examples/a2a_sdk_handler.py --port 8018 --worker
    python docs/examples/a2a_sdk_handler.py --port 8019
"""

import argparse
import asyncio
import signal
from contextlib import AsyncExitStack

from a2a.server.context import ServerCallContext
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from temporalio.worker import Worker

from streamq import StreamWriter, open_queue
from streamq.a2a import AgentPlugin
from streamq.a2a.sdk import QueueTaskEventStream, QueueTaskStore, WorkflowExecutor
from streamq.a2a.server import Agent, TaskHandler
from streamq.devserver import free_port
from streamq.gateway import serve
from streamq.temporal import StreamqPlugin, connect, streaming_activity


@streaming_activity
async def count(stream: StreamWriter, upto: str) -> None:
    """Stand for a model: send numbers, ten each second."""
    for number in range(1, int(upto) + 1):
        await stream.send_chunk(f"{number} ")
        await asyncio.sleep(0.1)


def card_at(url: str) -> AgentCard:
    """Return how the agent presents itself."""
    return AgentCard(
        name="Counter",
        description="Counts to the number that you name",
        version="1",
        capabilities=AgentCapabilities(streaming=True),
        supported_interfaces=[
            AgentInterface(url=f"{url}/", protocol_binding="JSONRPC", protocol_version="1.0")
        ],
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="count", name="Count", description="Numbers", tags=["numbers"])],
    )


async def main(port: int, *, has_worker: bool) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    card = card_at(f"http://127.0.0.1:{port}")
    async with AsyncExitStack() as stack:
        agent = TaskHandler(Agent(card=card, task_queue="counting", activity=count))
        stack.push_async_callback(agent.aclose)
        executor = WorkflowExecutor(agent)  # or an executor of your own
        queue = await stack.enter_async_context(open_queue())
        store = QueueTaskStore(queue, on_cancel=executor.stop_work)
        events = QueueTaskEventStream(queue)
        handler = DefaultRequestHandler(executor, store, card, event_stream=events)
        stack.push_async_callback(handler.aclose)

        async def resume(request: Request) -> JSONResponse:
            """Go on with a task of a replica that is gone: for whatever watches over replicas."""
            task_id = request.path_params["task_id"]
            done = await executor.resume(task_id, store, ServerCallContext())
            return JSONResponse({"done": done})

        routes = [
            *create_agent_card_routes(card),
            *create_jsonrpc_routes(handler, "/"),
            Route("/resume/{task_id}", resume, methods=["POST"]),
        ]
        if has_worker:
            client = await connect(plugins=[StreamqPlugin(), AgentPlugin()])
            worker = Worker(client, task_queue="counting", activities=[count])
            await stack.enter_async_context(worker)
        server = await stack.enter_async_context(serve(Starlette(routes=routes), port=port))
        print(server.url, flush=True)
        await stopped.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="where to serve; 0: a free port")
    parser.add_argument("--worker", action="store_true", help="run a worker in this process, too")
    given = parser.parse_args()
    asyncio.run(main(given.port or free_port(), has_worker=given.worker))
