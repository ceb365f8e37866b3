"""RFC 6962 hashing against the vectors that every implementation publishes, and proofs against every tree up to some size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_audit.merkle import (
    EMPTY_ROOT,
    BadProof,
    CompactRange,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

LEAVES = [
    bytes.fromhex(leaf)
    for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [  # certificate-transparency-go, merkle/rfc6962: roots of the first 1 to 8 leaves
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


class Tree:
    """A stored tree of `leaves`, as the ledger stores one."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.range = CompactRange()
        self.nodes: dict[tuple[int, int], bytes] = {}
        for leaf in leaves:
            for level, index, digest in self.range.append(leaf_hash(leaf)):
                self.nodes[level, index] = digest

    def node(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]

    def root(self, size: int) -> bytes:
        return CompactRange.of(size, self.node).root()


def recursive_root(leaves: list[bytes]) -> bytes:
    """The definition in RFC 6962, 2.1, word for word."""
    if len(leaves) < 2:
        return leaf_hash(leaves[0]) if leaves else EMPTY_ROOT
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(recursive_root(leaves[:split]), recursive_root(leaves[split:]))


def test_the_published_roots_come_out() -> None:
    tree = Tree(LEAVES)
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert [tree.root(size).hex() for size in range(1, 9)] == ROOTS


def test_a_published_inclusion_proof_comes_out() -> None:
    proof = inclusion_proof(0, 8, Tree(LEAVES).node)
    assert [digest.hex() for digest in proof] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]


def test_every_leaf_of_every_tree_up_to_70_is_proved_and_no_other_place() -> None:
    leaves = [b"%d" % number for number in range(70)]
    tree = Tree(leaves)
    for size in range(1, 71):
        root = tree.root(size)
        assert root == recursive_root(leaves[:size])
        for index in range(size):
            proof = inclusion_proof(index, size, tree.node)
            verify_inclusion(leaf_hash(leaves[index]), index, size, proof, root)
            with pytest.raises(BadProof):
                verify_inclusion(leaf_hash(leaves[index]), (index + 1) % (size + 1), size, proof, root)


def test_every_tree_up_to_40_begins_with_every_smaller_one() -> None:
    tree = Tree([b"%d" % number for number in range(40)])
    for new in range(41):
        for old in range(new + 1):
            proof = consistency_proof(old, new, tree.node)
            verify_consistency(old, new, proof, tree.root(old), tree.root(new))


@given(st.lists(st.binary(max_size=8), min_size=2, max_size=120), st.data())
def test_an_altered_proof_proves_nothing(leaves: list[bytes], data: st.DataObject) -> None:
    tree, size = Tree(leaves), len(leaves)
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, tree.node)
    place = data.draw(st.integers(0, len(proof) - 1))
    altered = bytes([proof[place][0] ^ data.draw(st.integers(1, 255))]) + proof[place][1:]
    for wrong in ([*proof[:place], altered, *proof[place + 1 :]], proof[:-1], [*proof, proof[-1]]):
        with pytest.raises(BadProof):
            verify_inclusion(leaf_hash(leaves[index]), index, size, wrong, tree.root(size))


@given(st.lists(st.binary(max_size=4), min_size=2, max_size=80, unique=True), st.data())
def test_a_tree_whose_past_was_rewritten_does_not_begin_with_the_old_one(
    leaves: list[bytes], data: st.DataObject
) -> None:
    old = data.draw(st.integers(1, len(leaves) - 1))
    edited = data.draw(st.integers(0, old - 1))
    before, after = Tree(leaves[:old]), Tree([*leaves[:edited], b"rewritten", *leaves[edited + 1 :]])
    proof = consistency_proof(old, len(leaves), after.node)
    with pytest.raises(BadProof):
        verify_consistency(old, len(leaves), proof, before.root(old), after.root(len(leaves)))


@given(st.lists(st.binary(max_size=4), max_size=100), st.integers(0, 100))
def test_a_tree_reopened_at_any_size_goes_on_alike(leaves: list[bytes], cut: int) -> None:
    cut = min(cut, len(leaves))
    whole = Tree(leaves)
    reopened = CompactRange.of(cut, whole.node)
    for leaf in leaves[cut:]:
        reopened.append(leaf_hash(leaf))
    assert reopened.root() == whole.range.root() == recursive_root(leaves)


def test_a_leaf_is_never_taken_for_a_node() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)
