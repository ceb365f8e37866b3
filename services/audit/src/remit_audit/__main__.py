"""The audit service: everything is constructed here, and nothing elsewhere."""

from __future__ import annotations

import asyncio
import os

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from remit_audit import handlers
from remit_audit.alarms import Alarms
from remit_audit.application import Trails
from remit_audit.checking import CopyCheck
from remit_audit.consumer import Consumer
from remit_audit.follower import Follower
from remit_audit.settings import AuditSettings
from remit_chassis.service import Service
from remit_chassis.settings import read_hex_secret

NICENESS = 5
"""The ledger follows what has happened already: while processors are scarce, calls under way come first."""


def build(settings: AuditSettings) -> Service:
    """The service, ready to run."""
    key = Ed25519PrivateKey.from_private_bytes(read_hex_secret(settings.ledger_key_file))
    public_key = key.public_key().public_bytes_raw()
    service = Service("audit", settings)
    consumer = Consumer(service, settings, key, Alarms(service))
    trails = Trails(service, consumer, settings.ledger_dir, public_key)
    handlers.register(service, trails, CopyCheck(service, consumer, settings, public_key), consumer)
    service.check("streams", consumer.ready)

    @service.on_start
    async def start() -> None:
        if settings.mongo_url:
            from remit_audit.mongo import TrailRepository

            trails.use(TrailRepository(settings.mongo_url))
        consumer.on_follow.append(project)
        await consumer.start()

    def project(follower: Follower) -> None:
        if projection := trails.projected(follower):
            consumer.spawn(projection.follow(follower))

    @service.on_stop
    async def stop() -> None:
        await consumer.stop()
        await asyncio.to_thread(trails.close)

    return service


def main() -> None:
    """Run until told to stop."""
    os.nice(NICENESS)
    build(AuditSettings()).run()


if __name__ == "__main__":
    main()
