"""A home with keys, a small source and all kinds of tools; permits and leases as policy and broker would issue them."""

from __future__ import annotations

import base64
import sqlite3
import time
import uuid
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacl.public import Box, PrivateKey

from remit_agent_runtime.tool_host_client import ToolCall, ToolHostClient
from remit_chassis.permits import PermitSigner
from remit_contracts.fast_decisions import Obligation
from remit_contracts.fast_leases import LeaseContent
from remit_contracts.permits import PermitClaims, args_digest

SECRET = 'sk/live+Zm9v=bar&<7>"%x'
"""With characters that URLs, JSON and HTML write differently."""

TOOLS = """
tools:
  - {{id: sql, kind: sql, source: sources/acme/flights.sqlite, reference_tables: [planes]}}
  - {{id: docs, kind: documents, folder: documents/acme}}
  - {{id: days-between, kind: function, entry: days_between}}
  - id: desk
    kind: http
    url: {url}
    method: {method}
    connection: desk
    parameters:
      airport: {{type: string, max_length: 40}}
      days: {{type: integer, required: false}}
"""

SOURCE = """
PRAGMA synchronous = OFF;
CREATE TABLE flights (
  carrier TEXT COLLATE NOCASE, flight INTEGER, tailnum TEXT, owner_hint TEXT AS (lower(tailnum)), dest TEXT
);
INSERT INTO flights (carrier, flight, tailnum, dest) VALUES
  ('UA', 1, 'N1UA', 'SFO'), ('AA', 2, 'N2AA', 'MIA'), ('ua', 3, 'N3XX', 'LAX'), ('DL', 4, NULL, 'ATL');
CREATE TABLE planes (tailnum TEXT PRIMARY KEY, seats INTEGER) WITHOUT ROWID;
INSERT INTO planes VALUES ('N1UA', 100), ('N2AA', 200), ('N3XX', 300);
CREATE TABLE aircraft (tailnum INTEGER PRIMARY KEY, model TEXT);
INSERT INTO aircraft VALUES (77, 'A320');
CREATE TABLE salaries (who TEXT, amount INTEGER);
INSERT INTO salaries VALUES ('zoe', 1000);
CREATE INDEX by_tail ON flights (tailnum, lower(tailnum));
CREATE VIEW late AS SELECT tailnum AS x, carrier FROM flights;
CREATE VIEW broken AS SELECT * FROM gone;
CREATE TABLE "odd ""name" ("select" TEXT, tailnum TEXT);
INSERT INTO "odd ""name" VALUES ('odd', 'N9');
CREATE VIRTUAL TABLE notes USING fts5(body, tailnum);
INSERT INTO notes VALUES ('flown by', 'N1UA');
ANALYZE;
"""


@dataclass
class Rig:
    """The keys of policy and broker, which only tests hold together, and the home."""

    home: Path
    policy: PermitSigner
    broker: PrivateKey
    host: PrivateKey

    def client(self, **settings: Any) -> ToolHostClient:
        """A client for this home; not started."""
        return ToolHostClient(
            home=self.home,
            key_file=self.home / "tool-host.key",
            permit_public_key_file=self.home / "permit.pub",
            broker_public_key_file=self.home / "broker.pub",
            **settings,
        )

    def claims(self, tool: str, arguments: dict[str, Any], **changes: Any) -> PermitClaims:
        """What policy would state of one call of acme's user u-1."""
        now = time.time()
        stated: dict[str, Any] = {
            "jti": uuid.uuid4().hex,
            "tenant": "acme",
            "user": "u-1",
            "session": "s-1",
            "run": uuid.uuid4().hex,
            "ordinal": 1,
            "tool": tool,
            "args_digest": args_digest(arguments),
            "bundle_digest": "b",
            "data_revision": "1",
            "input_digest": "i",
            "iat": now,
            "exp": now + 15,
        }
        return PermitClaims(**(stated | changes))

    def call(
        self,
        tool: str,
        arguments: dict[str, Any],
        *,
        claims: PermitClaims | None = None,
        sealed: str | None = None,
        obligations: tuple[Obligation, ...] = (),
        deadline_seconds: float = 10.0,
        **changes: Any,
    ) -> ToolCall:
        """A call with a good permit, or with one whose claims are `changes`d."""
        stated = claims or self.claims(tool, arguments, obligations=obligations, **changes)
        return ToolCall(
            permit=self.policy.sign(stated),
            sealed_lease=sealed,
            tool=tool,
            arguments=arguments,
            idempotency_key=stated.effect_key,
            deadline_seconds=deadline_seconds,
        )

    def lease(self, claims: PermitClaims, *, sealer: PrivateKey | None = None, **changes: Any) -> str:
        """A lease for the call of `claims`, sealed by the broker unless by another `sealer`."""
        held: dict[str, Any] = {
            "lease": uuid.uuid4().hex,
            "secret": SECRET,
            "tenant": claims.tenant,
            "user": claims.user,
            "session": claims.session,
            "run": claims.run,
            "ordinal": claims.ordinal,
            "tool": claims.tool,
            "connection": "desk",
            "hosts": ("127.0.0.1:1",),
            "scopes": (),
            "jti": claims.jti,
            "expires_at": time.time() + 30,
        }
        content = LeaseContent(**(held | changes))
        box = Box(sealer or self.broker, self.host.public_key)
        return base64.b64encode(box.encrypt(content.to_bytes())).decode()

    def write_tools(self, url: str = "http://127.0.0.1:1/conditions/{airport}", method: str = "GET") -> None:
        """acme's catalog, with the HTTP tool at `url`."""
        folder = self.home / "tools"
        folder.mkdir(exist_ok=True)
        (folder / "acme.yaml").write_text(TOOLS.format(url=f'"{url}"', method=method))


def make_rig(home: Path) -> Rig:
    """Everything, made anew."""
    rig = Rig(home, PermitSigner(PrivateKey.generate().encode()), PrivateKey.generate(), PrivateKey.generate())
    (home / "tool-host.key").write_text(rig.host.encode().hex())
    (home / "permit.pub").write_text(rig.policy.public_key.hex())
    (home / "broker.pub").write_text(rig.broker.public_key.encode().hex())
    for folder in ("sources/acme", "documents/acme/guide", "documents/globex"):
        (home / folder).mkdir(parents=True)
    with closing(sqlite3.connect(home / "sources/acme/flights.sqlite")) as connection:
        connection.executescript(SOURCE)
    (home / "documents/acme/guide/permits.md").write_text(
        "# Guide\n\nOpening words.\n\n## Permits\n\nA permit holds for seconds.\n\n```sh\n# no heading\n```\n"
    )
    (home / "documents/globex/own.md").write_text("# Globex\n\nA permit of globex, CANARY-GLOBEX.\n")
    rig.write_tools()
    return rig
