"""Users' keys as a service gets them: sealed to it, fetched once, kept briefly, gone when destroyed."""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from pathlib import Path

import orjson
import pytest
from nacl.public import PrivateKey, SealedBox

from remit_chassis import keyring
from remit_chassis.keyring import BrokerUserKeys, VaultUserKeys
from remit_chassis.vaultfile import VaultFile
from remit_contracts.errors import Absent, Unavailable

SEED = bytes(range(32))


class Broker:
    """Answers `user-key` as the credential broker does."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, str, bytes]] = []
        self.keys: dict[tuple[str, str], bytes] = {}
        self.seal_to = PrivateKey(SEED).public_key
        self.hold: asyncio.Event | None = None

    async def ask(self, tenant: str, user: str, service: str, verb: str, payload: bytes) -> bytes:
        self.asked.append((tenant, user, service, verb, payload))
        if self.hold:
            await self.hold.wait()
        key = self.keys.setdefault((tenant, user), os.urandom(32))
        if not key:
            raise Absent("destroyed", code="absent.erased")
        return orjson.dumps({"sealed_key": b64encode(SealedBox(self.seal_to).encrypt(key)).decode()})


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def keys(broker: Broker, time: Time) -> BrokerUserKeys:
    return BrokerUserKeys(ask=broker.ask, service="lab", box_seed=SEED, monotonic=time)


async def test_a_key_is_asked_of_the_broker_and_unsealed(broker: Broker, keys: BrokerUserKeys) -> None:
    assert keys.cached("acme", "u-1") is None
    assert await keys.key("acme", "u-1") == broker.keys["acme", "u-1"] == keys.cached("acme", "u-1")
    assert broker.asked == [("acme", "u-1", "credential-broker", "user-key", b'{"service":"lab"}')]


async def test_users_of_different_tenants_never_share_a_key(keys: BrokerUserKeys) -> None:
    assert await keys.key("acme", "u-1") != await keys.key("globex", "u-1")
    assert keys.cached("acme", "u-1") != keys.cached("globex", "u-1")


async def test_a_key_is_asked_for_once_however_many_wait(broker: Broker, keys: BrokerUserKeys) -> None:
    broker.hold = asyncio.Event()
    waiting = [asyncio.ensure_future(keys.key("acme", "u-1")) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # one who gives up does not take it from the others
    await asyncio.sleep(0)
    broker.hold.set()
    assert len(set(await asyncio.gather(*waiting[1:]))) == 1
    assert len(broker.asked) == 1


async def test_a_key_is_forgotten_after_its_time(broker: Broker, keys: BrokerUserKeys, time: Time) -> None:
    await keys.key("acme", "u-1")
    time.now += keyring.CACHE_SECONDS - 1
    assert keys.cached("acme", "u-1") is not None
    time.now += 1
    assert keys.cached("acme", "u-1") is None
    await keys.key("acme", "u-1")
    assert len(broker.asked) == 2


async def test_no_more_keys_are_kept_than_the_bound(keys: BrokerUserKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "CACHE_ENTRIES", 3)
    for number in range(4):
        await keys.key("acme", f"u-{number}")
    assert [keys.cached("acme", f"u-{number}") is None for number in range(4)] == [True, False, False, False]


async def test_a_destroyed_key_is_absent_and_asked_for_again(broker: Broker, keys: BrokerUserKeys) -> None:
    broker.keys["acme", "u-1"] = b""
    for _ in range(2):
        with pytest.raises(Absent) as refusal:
            await keys.key("acme", "u-1")
        assert refusal.value.refusal_code == "absent.erased"
    assert len(broker.asked) == 2


async def test_a_forgotten_key_is_not_brought_back_by_an_answer_under_way(broker: Broker, keys: BrokerUserKeys) -> None:
    broker.hold = asyncio.Event()
    waiting = asyncio.ensure_future(keys.key("acme", "u-1"))
    await asyncio.sleep(0)
    keys.forget("acme", "u-1")
    broker.hold.set()
    await waiting
    assert keys.cached("acme", "u-1") is None


async def test_a_key_sealed_to_another_service_is_no_key(broker: Broker, keys: BrokerUserKeys) -> None:
    broker.seal_to = PrivateKey.generate().public_key
    with pytest.raises(Unavailable):
        await keys.key("acme", "u-1")


@pytest.mark.parametrize("answer", [b"{}", b'{"sealed_key":7}', b'{"sealed_key":"!"}', b"[]"])
async def test_an_answer_without_a_key_is_no_key(answer: bytes) -> None:
    async def ask(*_: object) -> bytes:
        return answer

    with pytest.raises(Unavailable):
        await BrokerUserKeys(ask=ask, service="lab", box_seed=SEED).key("acme", "u-1")


async def test_a_short_key_is_no_key(broker: Broker, keys: BrokerUserKeys) -> None:
    broker.keys["acme", "u-1"] = b"short"
    with pytest.raises(Unavailable):
        await keys.key("acme", "u-1")


async def test_the_brokers_own_keys_come_from_its_vault(tmp_path: Path) -> None:
    vault = VaultFile(tmp_path / "vault.sqlite", bytes(32))
    keys = VaultUserKeys(vault)
    assert await keys.key("acme", "u-1") == vault.user_key("acme", "u-1") == keys.cached("acme", "u-1")
    vault.destroy_user_key("acme", "u-1")
    keys.forget("acme", "u-1")
    with pytest.raises(Absent):
        await keys.key("acme", "u-1")
    vault.close()
