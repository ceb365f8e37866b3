"""What must hold after any schedule of kills, from the record's copies and the tool's own ledger.

Each check gives sentences, one for each thing that is wrong. The names are those of the project's list of what must hold under
every fault: V1 one end for each run, V2 no effect before its authorisation, V3 no effect twice, V4 copies without a gap.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos import record as topics
from chaos.effect_desk import Effect
from chaos.load import TOOL, History
from chaos.record import Record

from remit_contracts.events import GENESIS, Envelope

NOT_DONE = "tool.http_status"
"""The one failure that a tool's server itself answered: there the effect is the server's to say."""

Opened = list[tuple[Envelope, dict[str, Any]]]


@dataclass
class Call:
    """One tool call as the runtime recorded it. `outcomes`: completed, failed or unknown."""

    tool: str
    user: str
    authorised_at: str = ""
    denied: bool = False
    outcomes: list[str] = field(default_factory=list)
    error: str = ""


@dataclass
class Runs:
    """All that the runtime's stores say of runs, by run id and by `{run}:{ordinal}`."""

    accepted: Counter[str] = field(default_factory=Counter)
    keys: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    ends: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    after_end: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    calls: dict[str, Call] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Record) -> Runs:
        """Read and open every event of every run."""
        runs = cls()
        for tenant in record.tenants():
            for envelope, said in record.opened(record.store(topics.RUNTIME, tenant)):
                if envelope.topic.startswith("runtime.Run."):
                    runs._follow(envelope, said)
        return runs

    def _follow(self, envelope: Envelope, said: dict[str, Any]) -> None:
        run, topic = envelope.originator_id, envelope.topic
        if self.ends.get(run):
            self.after_end.append(f"{topic} follows the end of run {run}")
        if topic == topics.ACCEPTED:
            self.accepted[run] += 1
            self.keys[f"{envelope.user} {said['idempotency_key']}"].add(run)
        elif topic in topics.ENDS:
            self.ends[run].append(topic.rpartition(".")[2].lower())
            if error := said.get("error"):
                self.errors[str(error["code"])] += 1
        elif "ToolCall" in topic:
            self._follow_call(f"{run}:{said['ordinal']}", envelope, said)

    def _follow_call(self, key: str, envelope: Envelope, said: dict[str, Any]) -> None:
        if envelope.topic in (topics.CALL_AUTHORIZED, topics.CALL_DENIED):
            call = self.calls.setdefault(key, Call(str(said["tool"]), envelope.user))
            if call.authorised_at or call.denied:
                self.after_end.append(f"call {key} was decided twice")
            call.denied = envelope.topic == topics.CALL_DENIED
            call.authorised_at = "" if call.denied else envelope.recorded_at
            return
        call = self.calls.setdefault(key, Call("", envelope.user))
        if envelope.topic == topics.CALL_UNKNOWN:
            call.outcomes.append("unknown")
        else:
            call.outcomes.append("completed" if said["ok"] else "failed")
            call.error = str((said["error"] or {}).get("code", ""))


def one_end_for_each_run(runs: Runs, history: History) -> Iterator[str]:
    """V1, and that what a user was told is what was stored."""
    yield from runs.after_end
    for run, asked in history.accepted.items():
        if run not in runs.accepted:
            yield f"{asked.who} was told run {run}, and no store has its acceptance"
        elif asked.seen and runs.ends.get(run) != [asked.seen]:
            yield f"{asked.who} saw run {run} {asked.seen}, and the store has {runs.ends.get(run)}"
    for run, times in runs.accepted.items():
        if times != 1:
            yield f"run {run} was accepted {times} times"
        if len(runs.ends.get(run, [])) != 1:
            yield f"run {run} has the ends {runs.ends.get(run, [])}, and needs exactly one"
    for key, found in runs.keys.items():
        if len(found) != 1:
            yield f"the idempotency key {key!r} began {len(found)} runs"


def no_effect_before_its_authorisation(runs: Runs, effects: Sequence[Effect]) -> Iterator[str]:
    """V2: by what the desk could read in the store at arrival, and by the times of both sides (one machine, one clock)."""
    for effect in effects:
        call = runs.calls.get(effect.key)
        if call is None or not call.authorised_at:
            yield f"effect {effect.key} has no authorisation in the store"
        elif call.authorised_at > effect.arrived_at:
            yield f"effect {effect.key} came at {effect.arrived_at}, authorised at {call.authorised_at}"
        if effect.authorised is False:
            yield f"effect {effect.key} came when its authorisation was not in the store yet"


def no_effect_twice_and_each_outcome_true(runs: Runs, effects: Sequence[Effect]) -> Iterator[str]:
    """V3: each key at most once, each authorised call with one outcome, which does not contradict the desk's ledger."""
    done = Counter(effect.key for effect in effects)
    for key, times in done.items():
        if times > 1:
            yield f"effect {key} happened {times} times"
    for key, call in runs.calls.items():
        if call.authorised_at and len(call.outcomes) != 1:
            yield f"the authorised call {key} has the outcomes {call.outcomes}, and needs exactly one"
        if not call.authorised_at and call.outcomes:
            yield f"the call {key} has the outcomes {call.outcomes} and was not authorised"
        if call.tool != TOOL:
            continue
        if call.denied and done[key]:
            yield f"the denied call {key} had an effect"
        if call.outcomes == ["completed"] and not done[key]:
            yield f"the call {key} is completed, and the desk never did it"
        if call.outcomes == ["failed"] and done[key] and call.error != NOT_DONE:
            yield f"the call {key} is said to have had no effect ({call.error}), and the desk did it"


def everybody_acted_as_themselves(runs: Runs, effects: Sequence[Effect], users: dict[str, str]) -> Iterator[str]:
    """Each effect came with the credential of the run's own user: `users` is TENANT/HANDLE by user id."""
    for effect in effects:
        call = runs.calls.get(effect.key)
        if call and users.get(call.user) != effect.who:
            yield f"effect {effect.key} of {users.get(call.user)} came with the credential of {effect.who}"


def copies_without_a_gap(
    record: Record, streams: dict[str, list[Envelope]], *, tenant: str, still_growing: str = "audit"
) -> Iterator[str]:
    """V4: each store numbered from 1 and linked by hashes, and the stream and the ledger with the same events, each at least
    and at most once.

    `still_growing` names the service that may store more after the stream was read: the auditor, whose reports of what it
    saw are events too.
    """
    ledger: dict[str, list[Envelope]] = defaultdict(list)
    for envelope in record.ledger(tenant):
        ledger[envelope.service].append(envelope)
    streamed: dict[str, dict[int, bytes]] = defaultdict(dict)
    for envelope in streams[tenant]:
        if streamed[envelope.service].setdefault(envelope.notification_id, envelope.hash) != envelope.hash:
            yield f"{tenant}: the stream has two events {envelope.notification_id} of {envelope.service}"
    for service in record.services(tenant):
        store = record.store(service, tenant)
        yield from _chain_faults(f"{tenant}/{service}", store)
        hashes = {envelope.notification_id: envelope.hash for envelope in store}
        in_ledger = {envelope.notification_id: envelope.hash for envelope in ledger[service]}
        if [envelope.notification_id for envelope in ledger[service]] != list(range(1, len(ledger[service]) + 1)):
            yield f"{tenant}/{service}: the ledger's order is not that of the store"
        for name, copy in (("stream", streamed[service]), ("ledger", in_ledger)):
            lacking = sorted(hashes.keys() - copy.keys())
            if service == still_growing:
                lacking = [number for number in lacking if number < max(copy, default=0)]
            if lacking:
                yield f"{tenant}/{service}: the {name} lacks {len(lacking)} events, first {lacking[0]}"
            if foreign := [number for number, digest in copy.items() if hashes.get(number) != digest]:
                yield f"{tenant}/{service}: the {name} has other events under {foreign[:5]}"


def _chain_faults(chain: str, store: list[Envelope]) -> Iterator[str]:
    previous = GENESIS
    for number, envelope in enumerate(store, 1):
        if (envelope.notification_id, envelope.prev_hash, envelope.intact) != (number, previous, True):
            yield f"{chain}: event {envelope.notification_id} does not follow event {number - 1}"
            return
        previous = envelope.hash
