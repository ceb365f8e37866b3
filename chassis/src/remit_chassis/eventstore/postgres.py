"""The library's PostgreSQL recorder, extended like the SQLite one: a schema per tenant, a table per service.

The only module that imports psycopg: it is there with the extra `postgres`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
from eventsourcing.persistence import ApplicationRecorder, IntegrityError, StoredEvent, Subscription
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore, PostgresSubscription
from psycopg import Connection, Cursor
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow
from psycopg.sql import SQL, Identifier

from remit_chassis.eventstore.chain import Chain, Head, Outcome, Save, instant, link, row_of
from remit_contracts.events import Envelope
from remit_contracts.identity import SYSTEM_USER

_COLUMNS = SQL(
    "notification_id, originator_id, originator_version, topic, state, tenant, user_id, recorded_at, prev_hash, hash"
)

_MAKING_TABLES = 0x72656D6974  # number of the advisory lock, the same in every process


class ChainDatastore(PostgresDatastore):
    """A pool of connections for one chain; the schema is the tenant's id."""

    def __init__(self, dsn: str, chain: Chain) -> None:
        target = conninfo_to_dict(dsn)
        super().__init__(
            dbname=str(target.get("dbname", "")),
            host=str(target.get("host", "")),
            port=str(target.get("port", 5432)),
            user=str(target.get("user", "")),
            password=str(target.get("password", "")),
            schema=chain.tenant,
            pool_size=2,
            max_overflow=4,
        )
        self.chain = chain

    def after_connect_func(self) -> Any:
        """Commits are durable whatever the server's default is."""
        configure = super().after_connect_func()

        def durable(connection: Connection[Any]) -> None:
            configure(connection)
            connection.execute("SET synchronous_commit = on")

        return durable


class ListeningSubscription(PostgresSubscription):
    """The library's never hears of what is stored after its first look and before its LISTEN: this one looks again."""

    def _listen(self) -> None:
        try:
            with self._recorder.datastore.get_connection() as connection:
                connection.execute(SQL("LISTEN {}").format(Identifier(self._recorder.channel_name)))
                self._has_been_notified.set()
                while not self._has_been_stopped and not self._thread_error:
                    for _ in connection.notifies(timeout=0.1, stop_after=1):  # so that a stop is noticed
                        self._has_been_notified.set()
        except BaseException as fault:
            self._thread_error = self._thread_error or fault
            self.stop()


class PostgresEventRecorder(PostgresApplicationRecorder):
    """The library's application recorder over a ChainDatastore, and the Recorder of our store."""

    datastore: ChainDatastore

    def __init__(self, datastore: ChainDatastore, *, events_table_name: str = "stored_events") -> None:
        super().__init__(datastore, events_table_name=events_table_name)
        names = {
            "schema": Identifier(datastore.schema),
            "table": Identifier(events_table_name),
            "probe": Identifier(f"{events_table_name}_probe"),
            "by_user": Identifier(f"{events_table_name}_by_user"),
            "columns": _COLUMNS,
        }
        self.sql_create_statements[self.create_table_statement_index] = SQL(
            "CREATE TABLE IF NOT EXISTS {schema}.{table} ("
            "notification_id bigint NOT NULL, originator_id uuid NOT NULL, originator_version bigint NOT NULL, "
            "topic text NOT NULL, state bytea NOT NULL, tenant text NOT NULL, user_id text NOT NULL, "
            "recorded_at text NOT NULL, prev_hash bytea NOT NULL, hash bytea NOT NULL, "
            "PRIMARY KEY (originator_id, originator_version))"
        ).format(**names)
        # The library's insert function knows nothing of our columns.
        del self.sql_create_statements[self.create_insert_function_statement_index]
        self.sql_create_statements += [
            SQL("CREATE INDEX IF NOT EXISTS {by_user} ON {schema}.{table} (user_id, notification_id)").format(**names),
            SQL(
                "CREATE TABLE IF NOT EXISTS {schema}.{probe} (id int PRIMARY KEY CHECK (id = 1), count bigint NOT NULL)"
            ).format(**names),
        ]
        self._create_schema = SQL("CREATE SCHEMA IF NOT EXISTS {schema}").format(**names)
        self._insert = SQL(
            "INSERT INTO {schema}.{table} ({columns}) SELECT * FROM unnest(%s::bigint[], %s::uuid[], %s::bigint[], "
            "%s::text[], %s::bytea[], %s::text[], %s::text[], %s::text[], %s::bytea[], %s::bytea[])"
        ).format(**names)
        self._select = SQL("SELECT {columns} FROM {schema}.{table} ").format(**names)
        self._probe = SQL(
            "INSERT INTO {schema}.{probe} AS p VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET count = p.count + 1"
        ).format(**names)

    def create_table(self) -> None:
        """The schema, then what the library makes; one process at a time: IF NOT EXISTS does not keep two apart."""
        with self.datastore.get_connection() as connection:
            connection.execute("SELECT pg_advisory_lock(%s)", [_MAKING_TABLES])
            try:
                connection.execute(self._create_schema)
                super().create_table()
            finally:
                connection.execute("SELECT pg_advisory_unlock(%s)", [_MAKING_TABLES])

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """The library's own way in: one save a transaction. It raises IntegrityError for a conflict."""
        save = Save(kwargs.get("user", SYSTEM_USER), stored_events)
        (outcome,) = self.insert_saves([save], instant(datetime.now(UTC)))
        if isinstance(outcome, IntegrityError):
            raise outcome
        return [envelope.notification_id for envelope in outcome]

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        """Notifications after number `gt`, and then those to come."""
        return ListeningSubscription(recorder=self, gt=gt, topics=topics)

    def insert_saves(self, saves: Sequence[Save], recorded_at: str) -> Sequence[Outcome]:
        """One INSERT for all when nothing is in the way. Never tried twice: a commit whose answer was lost may have
        succeeded, and a second attempt would then report a conflict with itself."""
        with self.datastore.get_connection() as connection, connection.transaction(), connection.cursor() as c:
            self._lock_table(c)
            self._notify_channel(c)
            head = self._read_head(c)
            linked, _ = link(self.datastore.chain, head, saves, recorded_at)
            try:
                with connection.transaction():
                    self._insert_rows(c, [envelope for envelopes in linked for envelope in envelopes])
                return linked
            except psycopg.errors.UniqueViolation:
                return self._insert_each(connection, c, head, saves, recorded_at)

    def _insert_each(
        self, connection: Connection[DictRow], c: Cursor[DictRow], head: Head, saves: Sequence[Save], recorded_at: str
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        broken: set[int] = set()
        for save in saves:
            if save.line in broken:
                outcomes.append(IntegrityError("follows a save that was refused"))
                continue
            (envelopes,), next_head = link(self.datastore.chain, head, [save], recorded_at)
            try:
                with connection.transaction():
                    self._insert_rows(c, envelopes)
            except psycopg.errors.UniqueViolation as conflict:
                outcomes.append(IntegrityError(str(conflict)))
                if save.line:
                    broken.add(save.line)
            else:
                head = next_head
                outcomes.append(envelopes)
        return outcomes

    def select_envelopes(self, first: int, limit: int) -> Sequence[Envelope]:
        """Up to `limit` events from number `first` on."""
        return self._envelopes(SQL("WHERE notification_id >= %s ORDER BY notification_id LIMIT %s"), first, limit)

    def select_envelopes_of_user(self, user: str, after: int, limit: int) -> Sequence[Envelope]:
        """One user's events numbered above `after`."""
        tail = SQL("WHERE user_id = %s AND notification_id > %s ORDER BY notification_id LIMIT %s")
        return self._envelopes(tail, user, after, limit)

    def select_envelopes_of_aggregate(self, originator_id: UUID) -> Sequence[Envelope]:
        """All events of an aggregate by version."""
        return self._envelopes(SQL("WHERE originator_id = %s ORDER BY originator_version"), originator_id)

    def head(self) -> Head:
        """The last event as the database has it."""
        with self.datastore.get_connection() as connection, connection.cursor() as c:
            return self._read_head(c)

    def probe(self) -> None:
        """Write and sync a counter."""
        with self.datastore.transaction(commit=True) as c:
            c.execute(self._probe)

    def close(self) -> None:
        """Let go of every connection."""
        self.datastore.close()

    def _insert_rows(self, c: Cursor[DictRow], envelopes: Sequence[Envelope]) -> None:
        columns = list(zip(*map(row_of, envelopes), strict=True))
        if columns:
            c.execute(self._insert, [list(column) for column in columns])

    def _read_head(self, c: Cursor[DictRow]) -> Head:
        row = c.execute(self._select + SQL("ORDER BY notification_id DESC LIMIT 1")).fetchone()
        return Head(row["notification_id"], bytes(row["hash"])) if row else Head()

    def _envelopes(self, tail: SQL, *values: Any) -> list[Envelope]:
        service = self.datastore.chain.service
        with self.datastore.get_connection() as connection, connection.cursor() as c:
            c.execute(self._select + tail, values, prepare=True)
            return [
                Envelope(
                    service=service,
                    tenant=row["tenant"],
                    user=row["user_id"],
                    notification_id=row["notification_id"],
                    originator_id=row["originator_id"].hex,
                    originator_version=row["originator_version"],
                    topic=row["topic"],
                    recorded_at=row["recorded_at"],
                    state=bytes(row["state"]),
                    prev_hash=bytes(row["prev_hash"]),
                    hash=bytes(row["hash"]),
                )
                for row in c.fetchall()
            ]


def open_postgres(dsn: str, chain: Chain) -> PostgresEventRecorder:
    """The recorder of one chain; makes the tenant's schema and the service's table when they are not there."""
    recorder = PostgresEventRecorder(ChainDatastore(dsn, chain), events_table_name=_table(chain.service))
    recorder.create_table()
    return recorder


def tenants_with_store(dsn: str, service: str) -> list[str]:
    """The tenants that have a table of this service."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT schemaname FROM pg_tables WHERE tablename = %s", (_table(service),))
        return [str(schema) for (schema,) in found.fetchall()]


def _table(service: str) -> str:
    return f"{service.replace('-', '_')}_events"
