"""The storm (see storm.py), in many weathers."""

import pytest

from fakes import in_fake_time
from storm import Storm


@pytest.mark.parametrize("seed", range(12))
@in_fake_time
async def test_a_short_storm(seed: int) -> None:
    """300 clients over a handful of sessions."""
    await Storm(seed).rage(300)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1300))
@in_fake_time
async def test_a_long_storm(seed: int) -> None:
    """1000 clients, many weathers."""
    await Storm(seed).rage(1000)
