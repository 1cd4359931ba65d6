"""Settings: where they come from, what a wrong one says, and what is shown of them."""

import base64
from pathlib import Path

import pytest

from libs.common.auth import generate_signing_keys
from libs.common.settings import InvalidSettings, Settings, load_settings

KEY = base64.b64encode(b"k" * 32).decode()


@pytest.fixture(autouse=True)
def _no_stray_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"TIDES_{name.upper()}", raising=False)
        monkeypatch.delenv(f"TIDES_{name.upper()}_FILE", raising=False)


def test_defaults_are_those_of_a_laptop() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.developer_mode) == ("127.0.0.1", 8080, False)
    assert settings.data_dir.name == "tides"
    with pytest.raises(InvalidSettings, match="TIDES_DATABASE_URL is not set"):
        _ = settings.database_dsn


def test_the_bus_is_the_database_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDES_DATABASE_URL", "postgresql://u:p@h/d")
    assert load_settings().bus_dsn == "postgresql://u:p@h/d"
    monkeypatch.setenv("TIDES_BUS_URL", "amqp://u:p@h/")
    assert load_settings().bus_dsn == "amqp://u:p@h/"


def test_code_wins_over_environment_and_environment_over_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDES_PORT", "1234")
    monkeypatch.setenv("TIDES_LOG_LEVEL", "debug")
    assert (load_settings().port, load_settings().log_level) == (1234, "DEBUG")
    assert load_settings(port=0).port == 0


def test_secrets_come_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"k1:{KEY}\n")
    monkeypatch.setenv("TIDES_SEALING_KEYS_FILE", str(file))
    assert load_settings().vault().current_key_id == "k1"
    monkeypatch.setenv("TIDES_SEALING_KEYS", f"k2:{KEY}")
    with pytest.raises(InvalidSettings, match="TIDES_SEALING_KEYS and TIDES_SEALING_KEYS_FILE are both set"):
        load_settings()
    monkeypatch.delenv("TIDES_SEALING_KEYS")
    monkeypatch.setenv("TIDES_SEALING_KEYS_FILE", str(tmp_path / "absent"))
    with pytest.raises(InvalidSettings, match="TIDES_SEALING_KEYS_FILE: No such file"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("DATABASE_URL", "mysql://u:hunter2@h/d", "postgresql://"),
        ("BUS_URL", "redis://u:hunter2@h/", "amqp://"),
        ("SEALING_KEYS", "k1:hunter2!", "32 bytes"),
        ("SEALING_KEYS", f"k1:{KEY[:20]}", "32 bytes"),
        ("PORT", "99999", "0 to 65535"),
        ("PORT", "hunter2", "0 to 65535"),
        ("INSTALLATION_ID", "hunter2", "UUID"),
        ("DEVELOPER_MODE", "perhaps", "true or false"),
        ("LOG_FORMAT", "xml", "json or console"),
        ("BEAT_FLOOR_S", "nan", "finite"),
        ("POOL_SIZE", "0", "greater than or equal to 1"),
    ],
)
def test_a_wrong_value_is_one_line_with_the_variable_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, hint: str
) -> None:
    monkeypatch.setenv(f"TIDES_{name}", value)
    with pytest.raises(InvalidSettings) as caught:
        load_settings()
    text = str(caught.value)
    assert text.startswith(f"TIDES_{name}: ")
    assert hint in text
    assert len(text.splitlines()) == 1
    assert "hunter2" not in text


def test_every_wrong_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDES_PORT", "x")
    monkeypatch.setenv("TIDES_LOG_FORMAT", "xml")
    with pytest.raises(InvalidSettings) as caught:
        load_settings()
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "TIDES_PORT",
        "TIDES_LOG_FORMAT",
    ]


def test_descriptions_and_reprs_show_no_secret() -> None:
    private, _ = generate_signing_keys()
    settings = load_settings(
        database_url="postgresql://tides:hunter2@db/tides",
        bus_url="amqp://tides:hunter2@mq/",
        sealing_keys=f"k1:{KEY}",
        signing_key=private,
    )
    rows = {row.name: row for row in settings.describe()}
    assert rows["TIDES_DATABASE_URL"].value == "postgresql://tides:***@db/tides"
    assert (rows["TIDES_SIGNING_KEY"].value, rows["TIDES_SIGNING_KEY"].source) == ("***", "set")
    assert (rows["TIDES_PORT"].value, rows["TIDES_PORT"].source) == ("8080", "default")
    shown = f"{rows} {settings!r} {settings}"
    for secret in ("hunter2", KEY, private):
        assert secret not in shown
