"""Check, offline, that one event lies in a tenant's ledger, with this file and the package `cryptography` alone.

    python verify_proof.py BUNDLE.json LEDGER.pub

BUNDLE.json is what `remit trail prove` writes; LEDGER.pub is the ledger's Ed25519 public key (64 hex digits) as its
operator published it, obtained from somewhere else than the bundle. Three things are recomputed: the event's hash from
its fields, the root of the Merkle tree from that event and the audit path (RFC 6962), and the signature over size and
root (a C2SP signed note). Exit code 0: proved. 6: not proved. 2: the files are not what they should be.
"""

import base64
import json
import re
import sys
from hashlib import sha256
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT = "remit-proof-v1"


class NotProved(Exception):
    """The bundle does not prove its event."""


def whole(number: Any, name: str) -> int:
    """The number as it stands: `1.5` and `true` would be encoded as 1, and so pass for another event's."""
    if type(number) is not int:
        raise NotProved(f"{name} is no whole number: {number!r}")
    return number


def digest(text: Any, name: str) -> bytes:
    """32 bytes in their one form: 64 lower-case hex digits."""
    if not (isinstance(text, str) and re.fullmatch("[0-9a-f]{64}", text)):
        raise NotProved(f"{name} is no SHA-256 in 64 lower-case hex digits: {text!r}")
    return bytes.fromhex(text)


def from_base64(text: Any, name: str) -> bytes:
    """Bytes in their one form: padded, and with no bit set that the padding leaves over."""
    raw = base64.b64decode(text, validate=True)
    if base64.b64encode(raw).decode() != text:
        raise NotProved(f"{name} is not the base64 of its bytes")
    return raw


def event_encoding(event: dict[str, Any]) -> bytes:
    """The canonical bytes of an event: a tag, then every field preceded by its length in 4 bytes, big-endian."""
    fields = [
        event["service"].encode(),
        event["tenant"].encode(),
        event["user"].encode(),
        b"%d" % whole(event["notification_id"], "notification_id"),
        event["originator_id"].encode(),
        b"%d" % whole(event["originator_version"], "originator_version"),
        event["topic"].encode(),
        event["recorded_at"].encode(),
        from_base64(event["state"], "state"),
        digest(event["prev_hash"], "prev_hash"),
    ]
    return b"remit-event-v1\n" + b"".join(len(field).to_bytes(4, "big") + field for field in fields)


def root_from_path(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """The tree's root, from a leaf's hash and the hashes beside the way up (RFC 9162, 2.1.3.2)."""
    position, last, found = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise NotProved("the audit path is too long")
        if position & 1 or position == last:
            found = sha256(b"\x01" + sibling + found).digest()
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            found = sha256(b"\x01" + found + sibling).digest()
        position, last = position >> 1, last >> 1
    if last:
        raise NotProved("the audit path is too short")
    return found


def signed_checkpoint(note: str, origin: str, public_key: bytes) -> tuple[int, bytes]:
    """Size and root that the ledger's key signed for this origin."""
    text, blank, signatures = note.rpartition("\n\n")
    body = text + "\n"
    hint = sha256(origin.encode() + b"\n\x01" + public_key).digest()[:4]
    for line in signatures.split("\n"):
        if blank and line.startswith(f"— {origin} "):
            stamp = base64.b64decode(line.rpartition(" ")[2], validate=True)
            if stamp[:4] == hint:
                Ed25519PublicKey.from_public_bytes(public_key).verify(stamp[4:], body.encode())
                lines = body.split("\n")
                if lines[0] != origin:
                    raise NotProved(f"the checkpoint is of {lines[0]!r}, not of {origin!r}")
                return int(lines[1]), base64.b64decode(lines[2], validate=True)
    raise NotProved(f"the checkpoint carries no signature of {origin} by this key")


def verify(bundle: dict[str, Any], public_key: bytes) -> str:
    """Return one sentence on what is proved; raise NotProved. `public_key` is the 32 bytes to trust."""
    if bundle["format"] != FORMAT:
        raise NotProved(f"the bundle's format is {bundle['format']!r}, this program checks {FORMAT}")
    event, index, size = bundle["event"], whole(bundle["index"], "index"), whole(bundle["size"], "size")
    encoding = event_encoding(event)
    if sha256(encoding).hexdigest() != event["hash"]:
        raise NotProved("the event's hash does not match its fields")
    try:
        signed_size, signed_root = signed_checkpoint(bundle["checkpoint"], f"remit/{event['tenant']}", public_key)
    except InvalidSignature:
        raise NotProved("the checkpoint's signature does not verify with this key") from None
    if signed_size != size or not 0 <= index < size:
        raise NotProved(f"entry {index} of {size} is not under a checkpoint of {signed_size} entries")
    path = [digest(sibling, "proof") for sibling in bundle["proof"]]
    if root_from_path(sha256(b"\x00" + encoding).digest(), index, size, path) != signed_root:
        raise NotProved("the event is not in the tree that the checkpoint signs")
    return f"proved: {event['topic']} of {event['user']} is entry {index} of {size} in the ledger of {event['tenant']}"


def main(arguments: list[str]) -> int:
    """Check the files named on the command line."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        with open(arguments[0], encoding="utf-8") as bundle, open(arguments[1], encoding="ascii") as key:
            print(verify(json.load(bundle), bytes.fromhex(key.read().strip())))
    except NotProved as fault:
        print(f"not proved: {fault}", file=sys.stderr)
        return 6
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        print(f"no valid bundle or key: {type(fault).__name__}: {fault}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
