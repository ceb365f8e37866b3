"""A Merkle tree as in RFC 6962: hashes, a compact range that grows, proofs of inclusion and of consistency.

A complete subtree is named (level, index): level 0 holds leaf hashes, and (level, index) covers the 2**level leaves
from index * 2**level on. Complete subtrees never change again, so storing them makes every proof a few look-ups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

Node = Callable[[int, int], bytes]
"""Gives the hash of a complete subtree by level and index."""

EMPTY_ROOT = sha256(b"").digest()


class BadProof(ValueError):
    """A proof that does not lead to the root, or whose length fits no such tree."""


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


class CompactRange:
    """The right edge of a tree: the hashes of its largest complete subtrees, from left to right."""

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        if size.bit_count() != len(hashes):
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} complete subtrees, not {len(hashes)}")
        self.size = size
        self._hashes = list(hashes)

    @classmethod
    def of(cls, size: int, node: Node) -> CompactRange:
        """The edge of a stored tree of `size` leaves."""
        return cls(size, [node(level, index) for level, index in edge(size)])

    def copy(self) -> CompactRange:
        """An independent one, to grow on trial."""
        return CompactRange(self.size, self._hashes)

    def append(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Add a leaf hash; returns the subtrees that it completes, as (level, index, hash), the leaf first."""
        index, level, last = self.size, 0, leaf
        completed = [(0, index, last)]
        while index & 1:
            last = node_hash(self._hashes.pop(), last)
            level, index = level + 1, index >> 1
            completed.append((level, index, last))
        self._hashes.append(last)
        self.size += 1
        return completed

    def root(self) -> bytes:
        """The tree's root hash."""
        if not self._hashes:
            return EMPTY_ROOT
        root = self._hashes[-1]
        for left in reversed(self._hashes[:-1]):
            root = node_hash(left, root)
        return root


def edge(size: int) -> list[tuple[int, int]]:
    """Names of the largest complete subtrees of a tree of `size` leaves, from left to right."""
    names, first = [], 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            names.append((level, first >> level))
            first += 1 << level
    return names


def inclusion_proof(index: int, size: int, node: Node) -> list[bytes]:
    """The audit path of leaf `index` in a tree of `size` leaves (RFC 6962, 2.1.1), nearest sibling first."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    path, first, last = [], 0, size
    while last - first > 1:
        middle = first + _split(last - first)
        if index < middle:
            path.append(_range_hash(middle, last, node))
            last = middle
        else:
            path.append(_range_hash(first, middle, node))
            first = middle
    return path[::-1]


def consistency_proof(old: int, new: int, node: Node) -> list[bytes]:
    """The proof that the tree of `new` leaves begins with the tree of `old` leaves (RFC 6962, 2.1.2)."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} leaves cannot extend one of {old}")
    if old in (0, new):
        return []
    path, first, last, whole = [], 0, new, True
    while old != last:
        middle = first + _split(last - first)
        if old <= middle:
            path.append(_range_hash(middle, last, node))
            last = middle
        else:
            path.append(_range_hash(first, middle, node))
            first, whole = middle, False
    if not whole:
        path.append(_range_hash(first, last, node))
    return path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Raise BadProof unless `leaf` (a leaf hash) is leaf `index` of the tree (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        raise BadProof(f"a tree of {size} leaves has no leaf {index}")
    position, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise BadProof("the proof is too long")
        if position & 1 or position == last:
            found = node_hash(sibling, found)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        position, last = position >> 1, last >> 1
    if last or found != root:
        raise BadProof(f"leaf {index} is not in the tree of {size} leaves with that root")


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Raise BadProof unless the tree of `new` leaves begins with the tree of `old` leaves (RFC 9162, 2.1.4.2)."""
    if not 0 <= old <= new:
        raise BadProof(f"a tree of {new} leaves cannot extend one of {old}")
    if old in (0, new):
        if proof or (old == new and old_root != new_root) or (old == 0 and old_root != EMPTY_ROOT):
            raise BadProof(f"trees of {old} and {new} leaves do not agree")
        return
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        raise BadProof("the proof is too short")
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    found_old = found_new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise BadProof("the proof is too long")
        if position & 1 or position == last:
            found_old, found_new = node_hash(sibling, found_old), node_hash(sibling, found_new)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            found_new = node_hash(found_new, sibling)
        position, last = position >> 1, last >> 1
    if last or found_old != old_root or found_new != new_root:
        raise BadProof(f"the tree of {new} leaves does not begin with the tree of {old}")


def _split(width: int) -> int:
    return 1 << ((width - 1).bit_length() - 1)


def _range_hash(first: int, last: int, node: Node) -> bytes:
    width = last - first
    if width & (width - 1) == 0:
        level = width.bit_length() - 1
        return node(level, first >> level)
    middle = first + _split(width)
    return node_hash(_range_hash(first, middle, node), _range_hash(middle, last, node))
