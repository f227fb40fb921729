"""The settings of usage-service."""

import pytest

from usage_service.config import Settings


@pytest.mark.parametrize(("megabytes", "limit"), [(100, 104_857_600), (0.5, 524_288), (0.001, 1048)])
def test_the_daily_limit_is_whole_bytes(megabytes: float, limit: int) -> None:
    given = {"_env_file": None, "jwt_secret": "x" * 32, "daily_bandwidth_mb": megabytes}
    assert Settings(**given).daily_limit == limit
