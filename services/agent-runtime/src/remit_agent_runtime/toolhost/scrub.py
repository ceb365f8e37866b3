"""Takes a secret out of what a tool's server answers, by value, in the forms in which servers echo credentials."""

from __future__ import annotations

import base64
import json
import re
from typing import Any, Final
from urllib.parse import quote, quote_plus

import orjson

from remit_agent_runtime.toolhost.refusals import MALFORMED_RESULT, ToolRefused

PLACEHOLDER: Final = "[credential withheld]"
SHORTEST_ENCODED: Final = 8
"""Encoded pieces below this length would match by chance; the plain secret is always looked for."""
MAX_DEPTH: Final = 64


class Scrubber:
    """For one secret. Not found: a secret that is split over fields, encrypted, or encoded twice."""

    def __init__(self, secret: str) -> None:
        raw = secret.encode()
        encoded = {
            *(_base64_core(raw, offset, url=url) for offset in range(3) for url in (False, True)),
            raw.hex(),
            "".join(f"%{byte:02x}" for byte in raw),
            secret[::-1],
        }
        plain = {
            secret,
            quote(secret, safe=""),
            quote(secret),
            quote_plus(secret),
            json.dumps(secret)[1:-1],
            json.dumps(secret, ensure_ascii=False)[1:-1],
            json.dumps(secret)[1:-1].replace("/", "\\/"),
            _html_escaped(secret),
        }
        forms = {form for form in plain if form} | {form for form in encoded if len(form) >= SHORTEST_ENCODED}
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        # Without regard to case: hex and percent-encoding are written either way; base64 then matches a little more.
        self._pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)

    def text(self, value: str) -> str:
        """`value` without the secret."""
        return self._pattern.sub(PLACEHOLDER, value)

    def tree(self, value: Any, depth: int = 0) -> Any:
        """A JSON value without the secret, in keys, texts and numbers; raises ToolRefused when it is nested too
        deeply."""
        if depth > MAX_DEPTH:
            raise ToolRefused(f"the answer is nested more than {MAX_DEPTH} deep", code=MALFORMED_RESULT)
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self.tree(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self.tree(item, depth + 1) for item in value]
        if isinstance(value, (int, float)) and not isinstance(value, bool) and self._pattern.search(str(value)):
            return PLACEHOLDER
        return value

    def clean(self, value: Any) -> Any:
        """`tree`, and a last look at the whole as JSON: what still holds the secret is refused."""
        scrubbed = self.tree(value)
        if self._pattern.search(orjson.dumps(scrubbed).decode()):
            raise ToolRefused(
                "the answer holds the credential in a form that cannot be taken out", code=MALFORMED_RESULT
            )
        return scrubbed


def _base64_core(raw: bytes, offset: int, *, url: bool) -> str:
    """The characters that every base64 text holds in which `raw` begins `offset` bytes into a group of three."""
    encode = base64.urlsafe_b64encode if url else base64.b64encode
    encoded = encode(b"\0" * offset + raw).decode().rstrip("=")
    first = (0, 2, 3)[offset]
    whole = (offset + len(raw)) * 8 // 6
    return encoded[first:whole]


def _html_escaped(text: str) -> str:
    for plain, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#x27;")):
        text = text.replace(plain, escaped)
    return text
