"""Logs hold facts and no secrets, whoever wrote them."""

import io
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from libs.common import log, personal_tokens


@contextmanager
def written(form: str = "json", level: str = "INFO", stream: TextIO | None = None) -> Iterator[io.StringIO]:
    kept = io.StringIO()
    log.configure(level, form, stream or kept)
    try:
        yield kept
    finally:
        log.configure()


SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    "name",
    ["password", "new_password", "PASSWORD", "token", "access_token", "apiToken", "api_key", "apiKey", "secret",
     "sealed_secret", "signing_key", "sealing_keys", "authorization", "cookie", "authenticator", "credentials"],
)  # fmt: skip
def test_fields_named_like_secrets_are_masked_however_deep(name: str) -> None:
    with written() as stream:
        structlog.get_logger().info("resource.changed", **{name: SECRET}, inner={"list": [{name: SECRET}]})
    fact = json.loads(stream.getvalue())
    assert SECRET not in stream.getvalue()
    assert fact[name] == log.MASK
    assert fact["inner"]["list"][0][name] == log.MASK


@pytest.mark.parametrize("name", ["key", "token_id", "keys_known", "password_set", "routing_key", "machine"])
def test_fields_that_only_speak_of_secrets_are_shown(name: str) -> None:
    assert log.mask({name: "shown"}) == {name: "shown"}


@pytest.mark.parametrize(
    "text",
    [
        f"connect to postgresql://tides:{SECRET}@db:5432/tides failed",
        f"amqp://guest:{SECRET}@broker/ and https://x:{SECRET}@y/z?a=b",
        f"GET /x?token={SECRET}&b=1",
        f"{{'password': '{SECRET}'}}",
        f'{{"secret": "{SECRET}"}}',
        f"Authorization: Bearer {SECRET}",
        f"password={SECRET}",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
        f"DETAIL:  Failing row contains (1, {SECRET}).",
    ],
)
def test_secrets_inside_texts_are_masked_wherever_they_are(text: str) -> None:
    with written() as stream:
        structlog.get_logger().info("a.fact", detail=text, items=(text,), error=RuntimeError(text))
        logging.getLogger("somebody.else").warning("it says %s", text)
        try:
            raise ValueError(text)
        except ValueError:
            structlog.get_logger().exception("it.failed")
            logging.getLogger("somebody.else").exception("it failed: %s", text)
    assert SECRET not in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 4


@given(st.data(), st.sampled_from([pattern for pattern, _ in log._IN_TEXT]))
def test_whatever_holds_a_secret_is_looked_at_closely(data: st.DataObject, pattern: re.Pattern[str]) -> None:
    text = data.draw(st.from_regex(pattern))
    expected = text
    for each, replacement in log._IN_TEXT:
        expected = each.sub(replacement, expected)
    assert log.mask_text(text) == expected


def test_tokens_are_masked_and_their_ids_are_not() -> None:
    token = personal_tokens.fresh()
    masked = log.mask_text(f"used {token}.")
    parsed = personal_tokens.parse(token)
    assert parsed is not None
    assert parsed[1] not in masked
    assert parsed[0].hex in masked
    assert log.mask_text("eyJhbGciOiJFZDI1NTE5In0.eyJzdWIiOiJ4In0.c2ln") == log.MASK


def test_every_line_has_time_level_and_context_also_from_other_libraries() -> None:
    with written() as stream, structlog.contextvars.bound_contextvars(request_id="r1", service="registry"):
        structlog.get_logger().info("resource.created", resource="x")
        logging.getLogger("uvicorn.error").info("started", extra={"color_message": "x"})
        logging.getLogger("sqlalchemy.engine.Engine").info("select 1")
        logging.getLogger("aiormq.connection").info("chatter")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["resource.created", "started"]
    for line in lines:
        assert line["level"] == "info"
        assert line["timestamp"].endswith("Z")
        assert (line["request_id"], line["service"]) == ("r1", "registry")
    assert "color_message" not in lines[1]


def test_the_console_form_masks_too_and_shows_no_local_variables() -> None:
    with written("console") as stream:
        try:
            local = SECRET
            raise ValueError(f"has {len(local)} characters")
        except ValueError:
            structlog.get_logger().exception("it.failed", password=SECRET)
    assert SECRET not in stream.getvalue()
    assert "15 characters" in stream.getvalue()


def test_levels_below_the_configured_one_are_silent() -> None:
    with written(level="WARNING") as stream:
        structlog.get_logger().info("chatter")
        structlog.get_logger().warning("said")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["said"]


def test_the_journal_hears_how_urgent_each_line_is_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "journal").open("w+") as journal, (tmp_path / "file").open("w+") as file:
        status = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        for stream in (journal, file):
            with written(stream=stream):
                structlog.get_logger().info("machine.deployed")
                structlog.get_logger().error("beat.failed")
        told, plain = [(tmp_path / name).read_text().splitlines() for name in ("journal", "file")]
    assert [line[:3] for line in told] == ["<6>", "<3>"]
    assert [json.loads(line[3:])["event"] for line in told] == ["machine.deployed", "beat.failed"]
    assert [json.loads(line)["event"] for line in plain] == ["machine.deployed", "beat.failed"]
