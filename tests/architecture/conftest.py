"""The services as values."""

import pytest

from libs.common.service import Service
from tools.schemas import compose


@pytest.fixture(scope="session")
def composed() -> list[Service]:
    """Every service, composed on a runtime that connects to nothing."""
    return compose()
