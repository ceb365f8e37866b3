"""NATS keys and the claims signed with them: nkeys, JWT v2 (`ed25519-nkey`) and xkey boxes, on PyNaCl alone.

    ValueError
    +-- MalformedNkey   a text that is no nkey of the expected kind, or whose checksum is wrong
    +-- BadClaims       a token that does not verify, or is over; a box that does not open

An nkey is base32 of prefix, 32 key bytes and CRC-16/XMODEM, as in github.com/nats-io/nkeys. No message ever holds a
seed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson
from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey
from nacl.signing import SigningKey, VerifyKey

PREFIXES: Final = {"account": 0 << 3, "server": 13 << 3, "operator": 14 << 3, "user": 20 << 3, "curve": 23 << 3}
_SEED: Final = 18 << 3
_XKEY_VERSION: Final = b"xkv1"


class MalformedNkey(ValueError):
    """Not an nkey of the kind that was expected."""


class BadClaims(ValueError):
    """A signed or sealed statement that cannot be believed."""


def encode_public(kind: str, key: bytes) -> str:
    """The public nkey (`A...`, `N...`, `U...`, `X...`) of 32 raw bytes."""
    return _base32(bytes([PREFIXES[kind]]) + key)


def decode_public(text: str, kind: str) -> bytes:
    """The 32 raw bytes of a public nkey; raises MalformedNkey when it is of another kind."""
    raw = _unbase32(text)
    if len(raw) != 33 or raw[0] != PREFIXES[kind]:
        raise MalformedNkey(f"{text[:60]!r} is no public {kind} nkey")
    return raw[1:]


def encode_seed(kind: str, seed: bytes) -> str:
    """The seed nkey (`SA...`, `SU...`, `SX...`) of 32 raw bytes."""
    prefix = PREFIXES[kind]
    return _base32(bytes([_SEED | (prefix >> 5), (prefix & 31) << 3]) + seed)


def decode_seed(text: str) -> tuple[str, bytes]:
    """Kind and 32 raw bytes of a seed nkey."""
    raw = _unbase32(text.strip())
    if len(raw) != 34 or raw[0] & 0b1111_1000 != _SEED:
        raise MalformedNkey("the text is no nkey seed")
    prefix = ((raw[0] & 7) << 5) | (raw[1] >> 3)
    for kind, known in PREFIXES.items():
        if known == prefix:
            return kind, raw[2:]
    raise MalformedNkey("the nkey seed is of an unknown kind")


class SignKey:
    """An Ed25519 nkey that signs: a user's for the server's nonce, an account's for user claims."""

    def __init__(self, seed: str) -> None:
        self.kind, raw = decode_seed(seed)
        if self.kind == "curve":
            raise MalformedNkey("a curve seed seals and cannot sign")
        self._key = SigningKey(raw)
        self.public = encode_public(self.kind, bytes(self._key.verify_key))

    @classmethod
    def create(cls, kind: str) -> SignKey:
        """A new random key of that kind."""
        return cls(encode_seed(kind, os.urandom(32)))

    @classmethod
    def read(cls, path: Path) -> SignKey:
        """The key whose seed a file holds; raises MalformedNkey naming the file, never its content."""
        return cls(read_seed(path))

    def seed(self) -> str:
        """The secret, as an nkey seed."""
        return encode_seed(self.kind, bytes(self._key))

    def sign(self, data: bytes) -> bytes:
        """The 64 bytes of an Ed25519 signature."""
        return self._key.sign(data).signature


class XKey:
    """A curve nkey that seals: NaCl box (X25519, XSalsa20-Poly1305), on the wire `xkv1` + 24 bytes nonce + box."""

    def __init__(self, seed: str) -> None:
        kind, raw = decode_seed(seed)
        if kind != "curve":
            raise MalformedNkey(f"a {kind} seed signs and cannot seal")
        self._key = PrivateKey(raw)
        self.public = encode_public("curve", bytes(self._key.public_key))

    @classmethod
    def create(cls) -> XKey:
        """A new random key."""
        return cls(encode_seed("curve", os.urandom(32)))

    @classmethod
    def read(cls, path: Path) -> XKey:
        """The key whose seed a file holds."""
        return cls(read_seed(path))

    def seed(self) -> str:
        """The secret, as an nkey seed."""
        return encode_seed("curve", bytes(self._key))

    def open(self, data: bytes, sender: str) -> bytes:
        """What `sender` (a public curve nkey) sealed to this key; raises BadClaims when it does not open."""
        if not data.startswith(_XKEY_VERSION):
            raise BadClaims("the data is not sealed with an xkey")
        try:
            return Box(self._key, PublicKey(decode_public(sender, "curve"))).decrypt(data[len(_XKEY_VERSION) :])
        except (CryptoError, ValueError) as fault:
            raise BadClaims(f"the sealed data does not open ({type(fault).__name__})") from None

    def seal(self, data: bytes, recipient: str) -> bytes:
        """Data that only `recipient` (a public curve nkey) can open."""
        return _XKEY_VERSION + bytes(Box(self._key, PublicKey(decode_public(recipient, "curve"))).encrypt(data))


def encode_claims(key: SignKey, claims: dict[str, Any], *, at: datetime | None = None) -> str:
    """A NATS JWT over `claims`; adds `iss`, `iat` (of `at`, else of now) and `jti` (SHA-256 of the rest, as in
    nats-io/jwt)."""
    body = {"iss": key.public, "iat": int((at or datetime.now(UTC)).timestamp()), **claims}
    body["jti"] = base64.b32encode(hashlib.sha256(orjson.dumps(body)).digest()).rstrip(b"=").decode()
    signed = f"{_HEADER}.{_base64(orjson.dumps(body))}"
    return f"{signed}.{_base64(key.sign(signed.encode()))}"


def decode_claims(token: str, issuer_kind: str, *, at: datetime | None = None) -> dict[str, Any]:
    """The claims of a NATS JWT whose signature verifies with the key in its own `iss`, which must be of that kind.

    Raises BadClaims also when `exp` has passed. Whether that issuer is trusted is the caller's question.
    """
    try:
        header, body, signature = token.split(".")
        if orjson.loads(_unbase64(header)).get("alg") != "ed25519-nkey":
            raise BadClaims("the token's algorithm is not ed25519-nkey")
        claims: dict[str, Any] = orjson.loads(_unbase64(body))
        VerifyKey(decode_public(claims["iss"], issuer_kind)).verify(f"{header}.{body}".encode(), _unbase64(signature))
        expires_at = int(claims.get("exp", 0))
    except BadClaims:
        raise
    except (CryptoError, ValueError, KeyError, AttributeError, TypeError) as fault:
        raise BadClaims(f"the token does not verify ({type(fault).__name__})") from None
    if expires_at and expires_at <= (at or datetime.now(UTC)).timestamp():
        raise BadClaims("the token has expired")
    return claims


def read_seed(path: Path) -> str:
    """The nkey seed that a file holds; raises MalformedNkey naming the file, never its content."""
    try:
        seed = path.read_text().strip()
        decode_seed(seed)
    except (OSError, ValueError) as fault:
        raise MalformedNkey(f"{path} holds no readable nkey seed ({type(fault).__name__})") from None
    return seed


def _base32(raw: bytes) -> str:
    # crc_hqx with 0 is CRC-16/XMODEM, the checksum of nkeys.
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).rstrip(b"=").decode()


def _unbase32(text: str) -> bytes:
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except ValueError:
        raise MalformedNkey("the text is no base32") from None
    body, checksum = raw[:-2], raw[-2:]
    if binascii.crc_hqx(body, 0).to_bytes(2, "little") != checksum:
        raise MalformedNkey("the nkey's checksum is wrong")
    return body


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _unbase64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


_HEADER: Final = _base64(b'{"typ":"JWT","alg":"ed25519-nkey"}')
