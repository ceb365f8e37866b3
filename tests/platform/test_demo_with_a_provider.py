"""`remit demo` with a provider's key set: the same expectations hold, and it is the provider's model that is asked."""

from __future__ import annotations

import asyncio
import os
import sys

import orjson
from language_model import LanguageModel

KEY = "sk-canary-0123456789"


async def test_the_demo_runs_on_a_providers_model_when_its_key_is_set() -> None:
    model = LanguageModel()
    server = await asyncio.start_server(model.serve, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    demo = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "remit.cli", "demo", "--output", "json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": address},
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(demo.communicate(), 120)
    finally:
        if demo.returncode is None:
            demo.terminate()
            await demo.wait()
        server.close()
    told = orjson.loads(out)
    assert [step for step in told["steps"] if not step["ok"]] == []
    assert (demo.returncode, told["ok"]) == (0, True)
    answers = {step["id"]: step["facts"].get("answer", "") for step in told["steps"]}
    assert answers["sql-masked"].startswith("This is what I found"), "the words are the provider's"
    assert model.keys == {f"Bearer {KEY}"}
    assert len(model.requests) == 9, "two for each answered run, one for the run that was denied"
    assert {tool["name"] for tool in model.requests[0]["tools"]} >= {"sql", "docs", "weather-desk"}
    assert KEY.encode() not in out + err
