"""Users' data keys, which encrypt their events everywhere: `rpc credential-broker.user-key`, for the subject's user.

The answer is base64 of a NaCl SealedBox to the named service's public box key, so that it is of use to that service
only. A key is made at the first question; a destroyed one is Absent, code `absent.erased`, for ever.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from remit_contracts.messages import Answer, Command


class UserKey(Command):
    """The key of the subject's user, sealed to `service`."""

    service: Literal["auth", "policy", "credential-broker", "agent-runtime", "audit"]


class UserKeySealed(Answer):
    """Opened with the box key of the service that was named; 32 bytes."""

    sealed_key: str = Field(repr=False)
