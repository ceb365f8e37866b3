"""Decisions by an OPA server, through opa-python-client.

Asked with strict built-in errors (a server left to its default drops a deny rule whose built-in errs) and without
retries (the client's own turn one denial into 0.9 s). Policies and data are pushed, each PUT is one transaction of the
server's store, and when it has lost them (it was restarted) they are pushed again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from opa_client import AsyncOpaClient
from opa_client.errors import ConnectionsError, RegoParseError

from remit_contracts.identity import label
from remit_policy.engine import (
    DEADLINE_SECONDS,
    DECISION_RULE,
    MAX_INPUT_BYTES,
    PROBE_INPUT,
    PROBE_TENANT,
    EngineError,
    EngineFailed,
    EngineTimeout,
    EngineUnreachable,
)
from remit_policy.policies import Policies

PACKAGE, RULE = DECISION_RULE.rpartition(".")[::2]
STRICT: Final = {"strict-builtin-errors": "true"}
LOAD_SECONDS = 10.0
AT_ONCE = 16
"""Questions under way. The deadline counts from when one is sent: with 64 sent at the same moment the last ones missed
it by waiting in line alone."""


class OpaEngine:
    """`url` is `http://HOST:PORT` or `https://HOST:PORT`; `token` is sent as a bearer token."""

    name = "opa"

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
        load_seconds: float = LOAD_SECONDS,
    ) -> None:
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"{url!r} is no OPA address: use http://HOST:PORT")
        self._url = url
        options: dict[str, Any] = {
            "host": f"[{address.hostname}]" if ":" in address.hostname else address.hostname,
            "port": address.port or 8181,
            "ssl": address.scheme == "https",
            "token": token,
            "retries": 0,
        }
        self._asking = AsyncOpaClient(**options, timeout=deadline_seconds)
        self._loading = AsyncOpaClient(**options, timeout=load_seconds)
        self._load_seconds = load_seconds
        self._policies = Policies({})
        self._documents: dict[str, bytes] = {}
        self._changing = asyncio.Lock()
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def load(self, policies: Policies, data: Mapping[str, bytes]) -> None:
        """Wait for the server and push all of it; raises EngineUnreachable, or EngineFailed with compile errors."""
        await self._asking.__aenter__()
        await self._loading.__aenter__()
        if not await _answers(self._loading, self._load_seconds):
            raise EngineUnreachable(f"OPA at {self._url} does not answer: start it, or choose the embedded engine")
        self._policies, self._documents = policies, dict(data)
        await self._push()

    async def update(self, tenant: str, document: bytes) -> None:
        """Replace `data.directory[tenant]` in one transaction."""
        async with self._changing:
            await self._put_document(tenant, document)
            self._documents[tenant] = document

    async def evaluate(self, tenant: str, input_json: bytes) -> bytes:
        """The rule's value as JSON; `null` when it is undefined, even after pushing the policies again."""
        if len(input_json) > MAX_INPUT_BYTES:
            raise EngineFailed(f"the input must have at most {MAX_INPUT_BYTES} bytes")
        question = orjson.loads(input_json)
        async with self._turns:
            try:
                answer = await self._query(question)
            except EngineUnreachable:  # perhaps a kept connection that the server has closed: a new one is tried once
                answer = await self._query(question)
            if "result" not in answer:
                await self._push()
                answer = await self._query(question)
        return orjson.dumps(answer.get("result"))

    async def probe(self) -> str:
        """Evaluates; a server that has lost the policies gets them again."""
        await self.evaluate(PROBE_TENANT, PROBE_INPUT)
        return f"OPA at {self._url} decided"

    async def close(self) -> None:
        """Close the connections; the server is somebody else's to stop."""
        await self._asking.close_connection()
        await self._loading.close_connection()

    async def _query(self, question: Any) -> dict[str, Any]:
        try:
            answer = await self._asking.query_rule(question, PACKAGE, RULE, STRICT)
        except Exception as fault:  # whatever aiohttp or JSON raise: it is no decision
            raise _failure(fault, self._url) from fault
        if not isinstance(answer, dict):
            raise EngineFailed("OPA answered with something else than an object")
        return answer

    async def _push(self) -> None:
        """Push everything, the rule that is asked for last: until all is there it is undefined, which is no decision.

        Policies without their data would deny what they allow, and a part of them might allow what the rest denies.
        """
        async with self._changing:
            for tenant, document in self._documents.items():
                await self._put_document(tenant, document)
            for name, source in sorted(self._policies.modules.items(), key=_holds_the_rule):
                await self._change(self._loading.update_policy_from_string(source, name, rego_compat=False))

    async def _put_document(self, tenant: str, document: bytes) -> None:
        path = f"directory/{label(tenant, kind='tenant')}"
        await self._change(self._loading.update_or_create_data(orjson.loads(document), path))

    async def _change(self, call: Any) -> None:
        try:
            await call
        except Exception as fault:
            raise _failure(fault, self._url) from fault


def _holds_the_rule(module: tuple[str, str]) -> bool:
    return f"package {PACKAGE}" in module[1].splitlines()


async def _answers(client: AsyncOpaClient, within_seconds: float) -> bool:
    try:
        return bool(await client.wait_for_ready(timeout=within_seconds, interval=0.05))
    except ConnectionsError:
        return False


def _failure(fault: Exception, url: str) -> EngineError:
    if isinstance(fault, TimeoutError):
        return EngineTimeout("OPA did not answer in time")
    if isinstance(fault, (RegoParseError, ValueError)) or hasattr(
        fault, "status"
    ):  # a refusal, bad JSON, an HTTP error
        return EngineFailed(f"{type(fault).__name__}: {fault}")
    return EngineUnreachable(f"OPA at {url}: {type(fault).__name__}: {fault}")
