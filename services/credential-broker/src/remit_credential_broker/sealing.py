"""What the broker opens and what it closes: secrets come in sealed to it, and go out sealed to one other.

The Box to the tool host is made once: its Diffie-Hellman step is what costs (50 us a SealedBox, 3 us a Box).
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping

from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey, SealedBox

from remit_chassis.nonces import Nonces
from remit_contracts.connections import MAX_SECRET_BYTES
from remit_contracts.errors import MalformedCommand

_BEARER = re.compile(rb"[!-~]{1,%d}" % MAX_SECRET_BYTES)


class Inbound:
    """Opens what clients seal to the broker; `seed` is its X25519 seed, 32 bytes."""

    def __init__(self, seed: bytes) -> None:
        key = PrivateKey(seed)
        self.public_key = bytes(key.public_key).hex()
        self._box = SealedBox(key)

    def open_bearer(self, sealed: str) -> bytes:
        """The secret; raises MalformedCommand, which shows nothing of it."""
        try:
            secret: bytes = self._box.decrypt(b64decode(sealed, validate=True))
        except (CryptoError, binascii.Error, ValueError, TypeError):
            reason = "sealed_secret is no SealedBox to this broker in base64: ask for its `sealing-key` again"
            raise MalformedCommand(reason, code="request.unsealable") from None
        if not _BEARER.fullmatch(secret):
            # A line break would let whoever chose the secret add headers to the tool's request.
            reason = f"a bearer secret is 1 to {MAX_SECRET_BYTES} printable ASCII characters without spaces"
            raise MalformedCommand(reason, code="request.bad_secret")
        return secret


class ToolHostBox:
    """Closes leases, for the tool host alone to open."""

    def __init__(self, seed: bytes, tool_host_public_key: bytes) -> None:
        self._box = Box(PrivateKey(seed), PublicKey(tool_host_public_key))
        self._nonces = Nonces(Box.NONCE_SIZE)

    def seal(self, content: bytes) -> str:
        """Base64 of nonce and ciphertext."""
        return b64encode(bytes(self._box.encrypt(content, self._nonces.next()))).decode()


class ServiceBoxes:
    """Closes users' data keys, each for one service; `public_keys` by service, 32 bytes each."""

    def __init__(self, public_keys: Mapping[str, bytes]) -> None:
        self._boxes = {service: SealedBox(PublicKey(key)) for service, key in public_keys.items()}

    def seal(self, service: str, content: bytes) -> str:
        """Base64 of a SealedBox."""
        return b64encode(bytes(self._boxes[service].encrypt(content))).decode()
