"""What the stream, a store's witness, has said of its log: nothing yet, that it agrees, or that it holds another log.

    Unavailable
    +-- NotCompared     unavailable.not_compared   the relay has not yet compared the log with the stream
    Tampered
    +-- Contradicted    tampered.store             the stream holds another log, or the store's own is damaged

A store that lost its file, or was restored from an old copy, looks like any other until it is compared. What it took
before would be acknowledged, and then contradict the stream for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from remit_chassis.eventstore.chain import Chain
from remit_chassis.eventstore.groupcommit import Write
from remit_contracts.errors import Tampered, Unavailable

PATIENCE_SECONDS = 3.0
"""How long a save waits for the comparison; less than those who ask wait for their answers."""


class NotCompared(Unavailable):
    """The log was not compared with its stream: the bus, or the stream, does not answer the relay."""

    code = "unavailable.not_compared"

    def __init__(self, chain: Chain) -> None:
        super().__init__(
            f"nothing is added to {chain} before it was compared with its stream: see the service's log",
            code=self.code,
            retry_after_seconds=1.0,
        )


class Contradicted(Tampered):
    """Nothing is added to this log, and nothing is answered from it."""

    code = "tampered.store"

    def __init__(self, chain: Chain, reason: str) -> None:
        super().__init__(f"the store of {chain} is not used: {reason}", code=self.code)


class Bar:
    """Keeps writes out of a store: they wait for the witness, each for PATIENCE_SECONDS, or are refused at once.

    `refuse(write, why)` tells whoever saved; `contradiction` is empty until there is one.
    """

    def __init__(self, chain: Chain, refuse: Callable[[Write, Exception], None]) -> None:
        self.contradiction = ""
        self._chain = chain
        self._refuse = refuse
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Write, asyncio.TimerHandle] = {}

    def put(self, write: Write) -> None:
        """Hold a sealed write, or refuse it."""
        if self.contradiction:
            self._refuse(write, Contradicted(self._chain, self.contradiction))
        else:
            self._waiting[write] = self._loop.call_later(PATIENCE_SECONDS, self._give_up, write)

    def contradict(self, reason: str) -> None:
        """Refuse what waits, and whatever comes."""
        self.contradiction = reason
        self.refuse_all(Contradicted(self._chain, reason))

    def refuse_all(self, why: Exception) -> None:
        """Refuse what waits."""
        for write in self.lift():
            self._refuse(write, why)

    def lift(self) -> Iterable[Write]:
        """What waits, in its order; it waits here no more."""
        waiting, self._waiting = self._waiting, {}
        for timer in waiting.values():
            timer.cancel()
        return waiting

    def _give_up(self, write: Write) -> None:
        del self._waiting[write]
        self._refuse(write, NotCompared(self._chain))
