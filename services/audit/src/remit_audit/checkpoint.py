"""Checkpoints: a tree's size and root as a C2SP signed note (c2sp.org/tlog-checkpoint, c2sp.org/signed-note), Ed25519.

    remit/acme
    3
    <root hash, base64>

    — remit/acme <4 bytes of key hash and 64 bytes of signature, base64>

The key hash is the first 4 bytes of SHA-256(name || 0x0A || 0x01 || public key), where 0x01 means Ed25519.
"""

from __future__ import annotations

import base64
import binascii
import re
from hashlib import sha256
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from remit_contracts.errors import Tampered

ED25519 = b"\x01"
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


class Checkpoint(NamedTuple):
    """What a note states: the log's origin, its number of leaves, and its 32-byte root hash."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The note's body, whose bytes are signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def origin_of(tenant: str) -> str:
    """The name of a tenant's log, which is its key's name as well."""
    return f"remit/{tenant}"


def key_hash(name: str, public_key: bytes) -> bytes:
    """Four bytes that say which key signed; no protection by themselves."""
    return sha256(name.encode() + b"\n" + ED25519 + public_key).digest()[:4]


def sign_note(text: str, name: str, key: Ed25519PrivateKey) -> str:
    """The note over `text`, which ends in a newline."""
    stamp = key_hash(name, key.public_key().public_bytes_raw()) + key.sign(text.encode())
    return f"{text}\n— {name} {base64.b64encode(stamp).decode()}\n"


def open_note(note: str, name: str, public_key: bytes) -> str:
    """The text of a note that the key named `name` signed; raises Tampered otherwise. Other keys' lines are ignored."""
    text, blank, signatures = note.rpartition("\n\n")
    if not blank or not note.endswith("\n"):
        raise Tampered("the checkpoint is no signed note")
    text += "\n"
    for line in signatures.removesuffix("\n").split("\n"):
        dash, _, rest = line.partition(" ")
        signer, _, encoded = rest.partition(" ")
        if dash == "—" and signer == name:
            stamp = _base64(encoded)
            if stamp[:4] == key_hash(name, public_key):
                _verify(text, stamp[4:], name, public_key)
                return text
    raise Tampered(f"the checkpoint has no signature of {name} by the published key")


def sign(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> str:
    """The signed note of a checkpoint."""
    return sign_note(checkpoint.text(), checkpoint.origin, key)


def verify(note: str, tenant: str, public_key: bytes) -> Checkpoint:
    """The checkpoint in a tenant's note; raises Tampered unless signature, origin, size and root are in order."""
    origin = origin_of(tenant)
    lines = open_note(note, origin, public_key).split("\n")
    if len(lines) < 4 or lines[0] != origin or not _SIZE.fullmatch(lines[1]):
        raise Tampered(f"the note is no checkpoint of {origin}")
    root = _base64(lines[2])
    if len(root) != 32:
        raise Tampered(f"the checkpoint of {origin} has no root of 32 bytes")
    return Checkpoint(origin, int(lines[1]), root)


def _verify(text: str, signature: bytes, name: str, public_key: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, text.encode())
    except (InvalidSignature, ValueError):
        raise Tampered(f"the signature of {name} on the checkpoint does not verify") from None


def _base64(text: str) -> bytes:
    """Strictly canonical, so that no second spelling of a note passes."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Tampered("the checkpoint holds no valid base64") from None
    if base64.b64encode(raw).decode() != text:
        raise Tampered("the checkpoint holds base64 that is not canonical")
    return raw
