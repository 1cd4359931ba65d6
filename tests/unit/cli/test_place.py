"""Where the demo keeps itself: its time goes on, its secrets are its own."""

import stat
from datetime import timedelta
from pathlib import Path

import pytest

from libs.common.clock import WallClock
from libs.common.settings import InvalidSettings
from libs.harvest.document import PRESETS, parse
from services.cli.demo import FASTEST
from services.cli.demo.furnish import policy_document
from services.cli.demo.open import FAST, cloud_of
from services.cli.demo.place import Place
from tests.unit.cli.conftest import Type


def test_a_second_start_goes_on_where_the_first_one_was(tmp_path: Path) -> None:
    later = WallClock().now() + timedelta(days=3)
    Place(tmp_path).keep_time(later, 60, is_last=True)

    for speed in (1.0, 60.0):
        assert timedelta(0) <= Place(tmp_path).clock(speed).now() - later < timedelta(seconds=30)


def test_a_demo_that_was_killed_never_goes_back(tmp_path: Path) -> None:
    now = WallClock().now() + timedelta(days=3)
    Place(tmp_path).keep_time(now, 60)

    assert Place(tmp_path).clock(60).now() >= now + timedelta(seconds=60)


def test_real_time_is_real_time_when_nothing_is_ahead_of_it(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.keep_time(WallClock().now() - timedelta(hours=1), 1, is_last=True)

    assert isinstance(place.clock(1.0), WallClock)


def test_secrets_are_fresh_stay_and_are_nobody_else_s(tmp_path: Path) -> None:
    one, again, other = Place(tmp_path / "a"), Place(tmp_path / "a"), Place(tmp_path / "b")

    assert one.cloud_password() == again.cloud_password() != other.cloud_password()
    assert one.kept.admin_token == again.kept.admin_token != other.kept.admin_token
    for file in (one.token_file, tmp_path / "a" / "cloud-password"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_demo_is_embedded_whatever_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDES_DATABASE_URL", "postgresql://elsewhere/tides")
    monkeypatch.setenv("TIDES_BUS_URL", "amqp://elsewhere/")

    settings = Place(tmp_path).settings(1.0)

    assert (settings.database_url, settings.bus_url, settings.data_dir) == (None, None, tmp_path)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(InvalidSettings, match="name a folder that this user can write"):
        Place(tmp_path / "file")


@pytest.mark.parametrize("speed", [1.0, 11.0, FASTEST])
def test_the_policy_of_every_speed_is_one_that_the_service_takes(tmp_path: Path, speed: float) -> None:
    document = policy_document(PRESETS["balanced"], cloud_of(Place(tmp_path), speed))

    policy = parse(document)
    assert policy.stale_after_s == 10 * speed or speed <= FAST


def test_a_speed_at_which_every_sample_would_be_late_is_refused(tides: Type) -> None:
    said = tides("demo", "--speed", "361")
    assert (said.code, "--speed" in said.err, "less than or equal to 360" in said.err) == (2, True, True), (
        said.err
    )
