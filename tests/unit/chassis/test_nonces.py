"""Nonces that are drawn ahead must still never come twice."""

import os
from concurrent.futures import ThreadPoolExecutor

from remit_chassis.nonces import DRAWN_AT_ONCE, Nonces


def test_every_nonce_has_its_size_and_comes_once():
    nonces = Nonces(12)
    given = [nonces.next() for _ in range(3 * DRAWN_AT_ONCE + 1)]
    assert {len(nonce) for nonce in given} == {12}
    assert len(set(given)) == len(given)


def test_threads_share_no_nonce():
    nonces = Nonces(24)
    with ThreadPoolExecutor(8) as threads:
        rounds = list(threads.map(lambda _: [nonces.next() for _ in range(2_000)], range(8)))
    given = [nonce for each in rounds for nonce in each]
    assert len(set(given)) == len(given) == 16_000


def test_a_forked_process_gives_none_of_its_parents():
    nonces = Nonces(12)
    nonces.next()  # the rest of what was drawn is left over
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, b"".join(nonces.next() for _ in range(DRAWN_AT_ONCE)))
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as answer:
        drawn = answer.read()
    os.waitpid(child, 0)
    childs = {drawn[at : at + 12] for at in range(0, len(drawn), 12)}
    assert len(childs) == DRAWN_AT_ONCE
    assert not childs & {nonces.next() for _ in range(DRAWN_AT_ONCE)}
