"""The doors' tables, which stand in every service's schema: outbox, inbox, revoked tokens, answers by key."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

common_metadata = MetaData()
"""Tables that stand in every service's schema; `libs.common.migrations` creates them."""

outbox = Table(
    "outbox",
    common_metadata,
    Column("number", BigInteger, Identity(), primary_key=True),
    Column("message_id", UUID(as_uuid=True), nullable=False),
    Column("key", String(100), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("public", Boolean, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("claimed_until", DateTime(timezone=True)),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("parked_at", DateTime(timezone=True)),
    Column("queue", String(200)),  # for this queue alone; null: wherever a binding matches
)

inbox = Table(
    "inbox",
    common_metadata,
    Column("message_id", UUID(as_uuid=True), primary_key=True),
    Column("handler", String(100), primary_key=True),
    Column("handled_at", DateTime(timezone=True), nullable=False, server_default=func.now(), index=True),
)

answered_request = Table(
    "answered_request",
    common_metadata,
    Column("user_id", UUID(as_uuid=True), primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("sealed", Text, nullable=False),  # empty until the transaction that claimed the key commits
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now(), index=True),
)

revoked_token = Table(
    "revoked_token",
    common_metadata,
    Column("token_id", UUID(as_uuid=True), primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
