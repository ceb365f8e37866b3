"""A server that speaks OpenAI's Responses API as a language model would: it picks a tool by the question, then words.

It stands for the provider alone: the client library, the gates, the tools and everything else are the real ones.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

SQL = "SELECT tailnum, carrier, flight, distance FROM flights ORDER BY distance DESC LIMIT 3"
CALLS = {
    "longest flights": ("sql", {"sql": SQL}),
    "conditions": ("weather-desk", {"airport": "EWR"}),
    "defend": ("docs", {"query": "what Remit does not defend against"}),
}
"""What is in the question -> the tool that it calls, with these arguments."""


class LanguageModel:
    """`requests` are the bodies that it was sent, `keys` the Authorization headers."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        while await reader.readline():
            length = 0
            while header := (await reader.readline()).decode().strip():
                name, _, value = header.partition(":")
                if name.lower() == "content-length":
                    length = int(value)
                elif name.lower() == "authorization":
                    self.keys.add(value.strip())
            request = orjson.loads(await reader.readexactly(length))
            self.requests.append(request)
            body = orjson.dumps(answer(request))
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        writer.close()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """A call of the tool that fits the question, or, once that has answered, words around its answer."""
    items = [item for item in request["input"] if isinstance(item, dict)]
    results = [str(item["output"]) for item in items if item.get("type") == "function_call_output"]
    if results:
        said: dict[str, Any] = {
            "type": "message", "id": "m1", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": f"This is what I found: {results[-1]}", "annotations": []}],
        }  # fmt: skip
    else:
        question = str([item for item in items if item.get("role") == "user"][-1]["content"])
        tool, arguments = next(call for words, call in CALLS.items() if words in question)
        said = {
            "type": "function_call", "id": "fc_1", "call_id": "c1", "name": tool, "status": "completed",
            "arguments": orjson.dumps(arguments).decode(),
        }  # fmt: skip
    return {
        "id": "r1", "object": "response", "created_at": 1, "model": request["model"], "status": "completed",
        "parallel_tool_calls": False, "tool_choice": "auto", "tools": [], "output": [said],
        "usage": {
            "input_tokens": 100, "output_tokens": 7, "total_tokens": 107,
            "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
        },
    }  # fmt: skip
