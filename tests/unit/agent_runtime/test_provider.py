"""A provider's model behind the model gate: a local server speaks OpenAI's protocol, the run is journaled and metered like any other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from unit.agent_runtime.world import TENANT, World

from remit_agent_runtime.worker import Cancellation

SECRET = "sk-canary-0123456789"


class Provider:
    """Answers `POST .../chat/completions` and `.../responses`: first a call of `sql`, then words. Or with `status`, an error."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.status = 200

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            path, length = line.split()[1].decode(), 0
            while (header := await reader.readline()).strip():
                name, _, value = header.decode().partition(":")
                length = int(value) if name.lower() == "content-length" else length
            self.requests.append((path, orjson.loads(await reader.readexactly(length))))
            body = orjson.dumps(
                self.answer(path) if self.status == 200 else {"error": {"message": f"bad key {SECRET}"}}
            )
            writer.write(
                b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                % (self.status, len(body), body)
            )
            await writer.drain()
        writer.close()

    def answer(self, path: str) -> dict[str, Any]:
        first = len(self.requests) == 1
        arguments = '{"sql": "SELECT 1"}'
        if path.endswith("/responses"):
            call = {
                "type": "function_call",
                "id": "fc_1",
                "call_id": "c1",
                "name": "sql",
                "arguments": arguments,
                "status": "completed",
            }
            words = {
                "type": "message", "id": "m1", "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": "One.", "annotations": []}],
            }  # fmt: skip
            return {
                "id": "r1", "object": "response", "created_at": 1, "model": "m", "status": "completed", "parallel_tool_calls": False,
                "tool_choice": "auto", "tools": [], "output": [call if first else words],
                "usage": {
                    "input_tokens": 100, "output_tokens": 7, "total_tokens": 107,
                    "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
                },
            }  # fmt: skip
        tool_calls = [{"id": "c1", "type": "function", "function": {"name": "sql", "arguments": arguments}}]
        message = (
            {"role": "assistant", "content": None, "tool_calls": tool_calls}
            if first
            else {"role": "assistant", "content": "One."}
        )
        return {
            "id": "x", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if first else "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107},
        }  # fmt: skip


@pytest.fixture
async def provider(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Provider]:
    made = Provider()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    yield made
    server.close()


async def accept(world: World) -> Any:
    from unit.agent_runtime.world import new_run

    run = new_run("How many?", at=world.clock())
    run.bindings["model"] = "openai:gpt-5.6-luna"
    await world.store.save(run, user=run.user)
    return run.id


async def test_a_providers_answers_are_journaled_and_its_tokens_metered(world: World, provider: Provider) -> None:
    run_id = await accept(world)
    await world.worker.work(TENANT, run_id, Cancellation())
    run = await world.load(run_id)
    assert (run.status, run.answer) == ("completed", "One.")
    assert (run.usage.input_tokens, run.usage.output_tokens) == (200, 14)
    assert [call.model for call in run.model_calls] == ["openai:gpt-5.6-luna"] * 2
    assert world.host.calls[0].arguments == {"sql": "SELECT 1"}


async def test_after_a_crash_the_provider_is_not_asked_again_for_what_it_said(world: World, provider: Provider) -> None:
    class Crash(BaseException):
        """Plays the end of the process."""

    world.host.answers["sql"] = Crash()
    run_id = await accept(world)
    with pytest.raises(Crash):
        await world.worker.work(TENANT, run_id, Cancellation())
    await world.worker.work(TENANT, run_id, Cancellation())
    run = await world.load(run_id)
    assert (run.status, run.answer, len(provider.requests)) == ("completed", "One.", 2)


async def test_a_providers_error_ends_the_run_without_quoting_the_key(world: World, provider: Provider) -> None:
    provider.status = 401
    run_id = await accept(world)
    await world.worker.work(TENANT, run_id, Cancellation())
    run = await world.load(run_id)
    assert run.error is not None
    assert run.error["code"] == "model.failed"
    assert "401" in run.error["reason"]
    assert SECRET not in repr([event.__dict__ for event in await world.events()])
