"""The demo's steps: what each user asks, and what must come of it."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from nacl.public import PublicKey, SealedBox

from remit.cli.installation import Installer
from remit.client import Client, connect
from remit.demo.expectations import Step, Story, expect
from remit.demo.weather_desk import WeatherDesk
from remit.violations import PermissionViolation
from remit_contracts import subjects
from remit_contracts.errors import Refusal
from remit_contracts.identity import Handle

QUESTION = "Which planes flew the longest flights?"
DESK_QUESTION = "What are the conditions at EWR?"
DOCUMENT_QUESTION = "What does Remit not defend against?"
PROTECTED = "tailnum"
BROKER = "credential-broker"


class Cast:
    """Everybody's connection, opened when first needed."""

    def __init__(self, url: str, office: Installer) -> None:
        self._url = url
        self._office = office
        self._clients: dict[str, Client] = {}

    async def client(self, who: str) -> Client:
        """TENANT/HANDLE's own connection."""
        if who not in self._clients:
            token = await self._office.token(Handle.parse(who))
            self._clients[who] = await connect(self._url, token=token).__aenter__()
        return self._clients[who]

    async def close(self) -> None:
        """End every connection."""
        for client in self._clients.values():
            await client.__aexit__(None, None, None)


class Acts:
    """What is done in each step; each says what it saw."""

    def __init__(self, cast: Cast, desk: WeatherDesk) -> None:
        self.cast = cast
        self.desk = desk
        self.runs: dict[str, dict[str, Any]] = {}

    async def analyst_asks(self, step: Step) -> str:
        """The masked answer."""
        run = self.runs["analyst"] = await (await self.cast.client("acme/analyst")).run("analyst", QUESTION)
        expect(run["status"] == "completed", f"the run {run['status']}: {run.get('error')}")
        called = [s for s in run["steps"] if s["type"] == "tool" and s["tool"] == "sql" and s["outcome"] == "completed"]
        expect(called, "the agent did not call the tool sql")
        withheld = (run["withheld"].get("sql") or called[0].get("withheld") or {}).get("fields", [])
        expect(any(PROTECTED in field for field in withheld), f"{PROTECTED} was not withheld: {withheld}")
        step.facts.update(run_id=run["run_id"], withheld=withheld, answer=run["answer"])
        return f"run {run['run_id'][:8]} completed, withheld: {', '.join(withheld)}"

    async def administrator_asks(self, step: Step) -> str:
        """The unmasked answer to the same question."""
        run = await (await self.cast.client("acme/administrator")).run("analyst", QUESTION)
        expect(run["status"] == "completed", f"the run {run['status']}: {run.get('error')}")
        withheld = [s.get("withheld") for s in run["steps"] if (s.get("withheld") or {}).get("fields")]
        expect(not withheld, f"withheld from the administrator: {withheld}")
        expect(run["answer"] != self.runs["analyst"]["answer"], "the unmasked answer is the masked one")
        step.facts.update(run_id=run["run_id"], answer=run["answer"])
        return f"run {run['run_id'][:8]} completed, nothing withheld"

    async def reader_asks(self, step: Step) -> str:
        """The denial."""
        run = await (await self.cast.client("acme/reader")).run("analyst", QUESTION)
        error = run.get("error") or {}
        expect(run["status"] == "failed", f"the run {run['status']}")
        expect(str(error.get("code", "")).startswith("policy."), f"not denied by policy: {error}")
        expect(error.get("decision_id"), "the refusal names no decision")
        step.facts.update(error=error)
        return f"{error['code']}: {error['reason']} (decision {error['decision_id'][:8]})"

    async def analyst_connects(self, step: Step) -> str:
        """A secret goes to the broker, sealed."""
        client = await self.cast.client("acme/analyst")
        key = (await client.command(BROKER, "sealing-key"))["public_key"]
        sealed = SealedBox(PublicKey(bytes.fromhex(key))).encrypt(self.desk.token.encode())
        added = await client.command(
            BROKER,
            "add-connection",
            {
                "name": "weather-desk",
                "kind": "bearer",
                "sealed_secret": base64.b64encode(sealed).decode(),
                "hosts": [self.desk.address],
                "scopes": ["conditions.read"],
                "shared": False,
            },
        )
        return f"connection {added['name']} for {', '.join(added['hosts'])}, its secret sealed to the broker"

    async def desk_is_asked(self, step: Step) -> str:
        """A lease is used."""
        run = await (await self.cast.client("acme/analyst")).run("analyst", DESK_QUESTION)
        expect(run["status"] == "completed", f"the run {run['status']}: {run.get('error')}")
        expect(
            len(self.desk.answered) == 1, f"the desk answered {len(self.desk.answered)} requests, and one was expected"
        )
        expect(self.desk.answered[0].startswith(run["run_id"]), f"the desk saw the key {self.desk.answered[0]!r}")
        expect(self.desk.turned_away == 0, f"the desk turned {self.desk.turned_away} requests away")
        leases = (await (await self.cast.client("acme/analyst")).command(BROKER, "list-leases"))["leases"]
        expect(any(lease["run"] == run["run_id"] for lease in leases), "no lease names the run")
        expect(self.desk.token not in str(run), "the secret is in the run's own view")
        step.facts.update(run_id=run["run_id"], idempotency_key=self.desk.answered[0])
        return f"the desk saw its bearer token once, with the key {self.desk.answered[0]}"

    async def reader_reads_documents(self, step: Step) -> str:
        """What a reader may do."""
        run = await (await self.cast.client("acme/reader")).run("helpdesk", DOCUMENT_QUESTION)
        expect(run["status"] == "completed", f"the run {run['status']}: {run.get('error')}")
        called = [s for s in run["steps"] if s["type"] == "tool" and s["tool"] == "docs"]
        expect(called, "the agent did not search the documents")
        return f"run {run['run_id'][:8]} completed from {len(called)} search(es) of the documents"

    async def globex_tries(self, step: Step) -> str:
        """Another tenant's user, at the bus."""
        victim = (await self.cast.client("acme/analyst")).session.caller
        thief = await self.cast.client("globex/analyst")
        asked = subjects.command(victim.tenant, victim.user, "audit", "show-trail")
        attempts = {
            "its subjects": thief.subscribe(f"remit.{victim.tenant}.{victim.user}.>"),
            "its progress": thief.subscribe(f"remit.{victim.tenant}.{victim.user}.live.>"),
            "its inbox": thief.subscribe(f"{subjects.user_inbox(victim)}.>"),
            "its trail": thief.request(asked, b"{}"),
            "its stream": thief.request(f"$JS.API.STREAM.INFO.{subjects.events_stream(victim.tenant)}", b""),
        }
        refused: list[str] = []
        for what, attempt in attempts.items():
            try:
                await attempt
            except PermissionViolation:
                refused.append(what)
        expect(len(refused) == len(attempts), f"the bus refused only {refused}")
        step.facts.update(refused=refused)
        return f"the bus itself refused {', '.join(refused)}"

    async def trail_is_replayed(self, step: Step) -> str:
        """The trail, in order."""
        client = await self.cast.client("acme/analyst")
        run_id = self.runs["analyst"]["run_id"]
        entries = await _trail_with(client, run_id)
        events = [e["event"] for e in entries if e.get("run_id") == run_id]
        expect("runtime.Run.ToolCallAuthorized" in events, f"no authorisation in the trail: {events}")
        authorised = events.index("runtime.Run.ToolCallAuthorized")
        expect(authorised < events.index("runtime.Run.ToolCallCompleted"), "the effect came before its authorisation")
        completed = "runtime.Run.ToolCallCompleted"
        told = next(e["data"] for e in entries if e["event"] == completed and e["run_id"] == run_id)
        expect(PROTECTED in str(told.get("withheld")), "the trail does not say which fields were withheld")
        expect(self.desk.token not in str(entries), "the secret is in the trail")
        step.facts.update(entries=len(entries), events=events)
        return f"{len(entries)} entries in order, the run's authorisation before its effect"

    async def trail_is_verified(self, step: Step) -> str:
        """The trail, proved."""
        report = await (await self.cast.client("acme/analyst")).command("audit", "verify-trail", timeout_seconds=30)
        expect(report["ok"], f"faults: {report['faults']}")
        expect(report["checkpoint"], "no checkpoint")
        step.facts.update(checkpoint=report["checkpoint"])
        return f"{report['entries']} entries verified under the checkpoint {report['checkpoint'].splitlines()[0]}"

    async def another_trail_is_hidden(self, step: Step) -> str:
        """A trail that is not one's own."""
        try:
            await (await self.cast.client("acme/reader")).trail(of="analyst")
        except Refusal as refusal:
            expect(refusal.exit_code in (3, 4), f"refused as {refusal.refusal_code}")
            return f"refused: {refusal.refusal_code}"
        return _unexpected("acme/reader read acme/analyst's trail")


async def tell(story: Story, cast: Cast, desk: WeatherDesk) -> None:
    """All steps that need a running platform."""
    acts = Acts(cast, desk)
    await story.step(
        "sql-masked",
        "acme/analyst's agent answers from the SQL source",
        "answered, tail numbers masked for that role",
        acts.analyst_asks,
    )
    await story.step(
        "sql-unmasked", "acme/administrator asks the same", "answered, nothing masked", acts.administrator_asks
    )
    await story.step("sql-denied", "acme/reader asks the same", "denied, with reason and decision", acts.reader_asks)
    await story.step(
        "documents", "acme/reader's helpdesk answers from documents", "answered", acts.reader_reads_documents
    )
    await story.step(
        "connection", "acme/analyst connects the weather desk", "kept by the broker, sealed", acts.analyst_connects
    )
    await story.step(
        "lease",
        "acme/analyst's agent asks the weather desk",
        "the tool gets a lease, the desk sees its token once",
        acts.desk_is_asked,
    )
    await story.step(
        "isolation",
        "globex/analyst tries acme/analyst's subjects, inbox and trail",
        "refused by the bus server",
        acts.globex_tries,
    )
    await story.step(
        "hidden", "acme/reader asks for acme/analyst's trail", "denied or hidden", acts.another_trail_is_hidden
    )
    await story.step("replay", "acme/analyst replays their trail", "complete and in order", acts.trail_is_replayed)
    await story.step(
        "verify", "acme/analyst verifies it", "every hash, up to a signed checkpoint", acts.trail_is_verified
    )


async def _trail_with(client: Client, run_id: str) -> list[dict[str, Any]]:
    """The whole trail, once the run's end is in it: the ledger follows the store by milliseconds."""
    async with asyncio.timeout(20):
        while True:
            entries = [entry async for entry in client.entries()]
            if any(e.get("run_id") == run_id and e["event"] == "runtime.Run.Completed" for e in entries):
                return entries
            await asyncio.sleep(0.1)


def _unexpected(what: str) -> str:
    expect(False, what)
    return what
