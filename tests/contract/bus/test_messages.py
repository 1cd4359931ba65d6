"""Events become messages and messages events."""

import json
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from libs.common.bus.base import Message
from libs.common.bus.messages import UnreadableMessage, decode, to_message
from libs.common.contracts.usage import UsageSampled

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def an_event() -> UsageSampled:
    return UsageSampled(at=AT, resource_id=uuid4(), samples=(), received_at=AT)


def test_an_event_comes_back_as_it_went() -> None:
    event = an_event()

    assert decode(to_message(event, "/tides/monitor")) == event


def test_the_headers_are_cloud_events() -> None:
    event = an_event()
    message = to_message(event, "/tides/monitor")

    assert (message.id, message.key) == (str(event.id), "usage.sampled.v1")
    assert message.headers == {
        "ce-specversion": "1.0",
        "ce-id": str(event.id),
        "ce-source": "/tides/monitor",
        "ce-type": "usage.sampled.v1",
        "ce-time": "2026-01-02T03:04:05+00:00",
        "ce-subject": str(event.resource_id),
    }


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(
        UnreadableMessage, match=r"no event usage\.sampled\.v9 in the catalogue \(message 7\)"
    ):
        decode(Message("7", "usage.sampled.v9", b"{}"))


def test_a_wrong_body_is_told_by_field_and_never_by_value() -> None:
    event = an_event()
    body = json.loads(event.encode()) | {"resource_id": "hunter2"}

    with pytest.raises(UnreadableMessage) as caught:
        decode(Message("7", event.key, json.dumps(body).encode()))

    assert str(caught.value) == "message 7 is not usage.sampled.v1 (resource_id: uuid_parsing)"
    assert caught.value.__cause__ is None
