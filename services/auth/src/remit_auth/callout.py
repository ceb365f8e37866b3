"""The auth callout: the bus server asks about every connection, and hears exactly what that user may do, or an error.

A request is a JWT of the server's, sealed to our xkey; the answer is a JWT of ours, sealed to the server's. Nothing
here waits for a disk or another service. Whoever is refused hears one error, whatever the reason: that is in our log,
and for a cap in the server's too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from remit_auth.live_connections import LiveConnections, Place, TooManyConnections
from remit_auth.message_rates import MessageRates
from remit_auth.projections import Directory
from remit_auth.refusal_log import RefusalLog
from remit_auth.system_account import name_of
from remit_auth.verifier import Credential, Verifier
from remit_chassis.nkeys import BadClaims, SignKey, XKey, decode_claims, encode_claims
from remit_contracts import subjects
from remit_contracts.errors import NotSignedIn, Overloaded, Unavailable
from remit_contracts.identity import Caller

SERVER_XKEY = "Nats-Server-Xkey"
REQUEST_AUDIENCE = "nats-authorization-request"
REFUSED = "not signed in"
MAX_REQUEST_BYTES = 64 * 1024


class Callout:
    """Turns one request into one answer."""

    def __init__(
        self,
        *,
        issuer: SignKey,
        xkey: XKey,
        verifier: Verifier,
        directory: Directory,
        live: LiveConnections,
        rates: MessageRates,
        full: Callable[[Caller, TooManyConnections], None],
        clock: Callable[[], datetime],
        log: RefusalLog,
    ) -> None:
        """`full` is told of everybody who is refused at the cap of connections."""
        self._issuer = issuer
        self._xkey = xkey
        self._verifier = verifier
        self._directory = directory
        self._live = live
        self._rates = rates
        self._full = full
        self._clock = clock
        self._log = log

    def answer(self, data: bytes, headers: Mapping[str, str] | None) -> bytes:
        """The sealed answer; raises BadClaims for what is no sealed request of a server, which gets none."""
        server_xkey = (headers or {}).get(SERVER_XKEY, "")
        if not server_xkey or len(data) > MAX_REQUEST_BYTES:
            raise BadClaims("the request is not sealed, or too large")
        claims = decode_claims(_text(self._xkey.open(data, server_xkey)), "server", at=self._clock())
        request, server, user_nkey = _parts(claims, server_xkey)
        said: dict[str, Any] = {"type": "authorization_response", "version": 2}
        who = {"host": str(_dict(request, "client_info").get("host", ""))[:64]}
        try:
            credential = self._credential(request)
            caller = credential.caller
            who |= {"tenant": caller.tenant, "user": caller.user}
            self._directory.admit(caller)
            self._rates.admit(caller)
            self._grant(_place(request, server), caller)
            said["jwt"] = self._user_claims(credential, user_nkey)
        except NotSignedIn as refusal:
            self._log.refused(refusal.reason, **who)
            said["error"] = REFUSED
        except (Overloaded, Unavailable) as refusal:
            self._log.refused(refusal.reason, code=refusal.refusal_code, **who)
            said["error"] = refusal.refusal_code
        claims = {"sub": user_nkey, "aud": server, "nats": said}
        return self._xkey.seal(encode_claims(self._issuer, claims, at=self._clock()).encode(), server_xkey)

    def _grant(self, place: Place, caller: Caller) -> None:
        try:
            self._live.grant(place, caller)
        except TooManyConnections as refusal:
            self._full(caller, refusal)
            raise

    def _credential(self, request: dict[str, Any]) -> Credential:
        token = _dict(request, "connect_opts").get("auth_token")
        if not isinstance(token, str) or not token:
            raise NotSignedIn("no auth_token was given")
        return self._verifier.verify(token, at=self._clock())

    def _user_claims(self, credential: Credential, user_nkey: str) -> str:
        caller = credential.caller
        claims = {
            "sub": user_nkey,
            "aud": subjects.USERS_ACCOUNT,
            "name": name_of(caller),
            "exp": credential.expires_at,
            "nats": {"type": "user", "version": 2, **permissions(caller)},
        }
        return encode_claims(self._issuer, claims, at=self._clock())


def permissions(caller: Caller) -> dict[str, Any]:
    """All that a user's connection may do, as the fields of a NATS user claim.

    A server whose accounts stand in its configuration applies none of the claim's limits after a callout (tried on
    nats-server 2.15.1), so its own `max_subscriptions` and `max_payload` hold, and the claim promises nothing.
    """
    return {
        "pub": {"allow": subjects.client_may_publish(caller)},
        "sub": {"allow": subjects.client_may_subscribe(caller)},
        "subs": -1,
        "data": -1,
        "payload": -1,
        "allowed_connection_types": ["STANDARD"],
    }


def _parts(claims: dict[str, Any], server_xkey: str) -> tuple[dict[str, Any], str, str]:
    """The request, the server's id and the connection's nkey; raises BadClaims when the claims hold no request."""
    request = _dict(claims, "nats")
    server = _dict(request, "server_id")
    if claims.get("aud") != REQUEST_AUDIENCE or request.get("type") != "authorization_request":
        raise BadClaims("the claims are no authorization request")
    if server.get("xkey") != server_xkey:
        raise BadClaims("the request was sealed by another than its server")
    server_id, user_nkey = server.get("id"), request.get("user_nkey")
    if not isinstance(server_id, str) or not isinstance(user_nkey, str) or server_id != claims.get("iss"):
        raise BadClaims("the request names no server and connection")
    return request, server_id, user_nkey


def _place(request: dict[str, Any], server: str) -> Place:
    """Raises NotSignedIn for a connection without a number, which nobody could cut off."""
    number = _dict(request, "client_info").get("id")
    if type(number) is not int or number < 0:  # a bool is an int to isinstance
        raise NotSignedIn("the request names no connection of its server")
    return Place(server, number)


def _dict(claims: dict[str, Any], name: str) -> dict[str, Any]:
    value = claims.get(name)
    return value if isinstance(value, dict) else {}


def _text(raw: bytes) -> str:
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        raise BadClaims("the request is not ASCII") from None
