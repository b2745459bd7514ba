"""Proxies that several of the conformance tests want, and the profiles in which traces are compared."""

from collections.abc import Callable

import pytest

from servers import Penstock


@pytest.fixture
def penstock_pinging(make_proxy: Callable[..., Penstock]) -> Penstock:
    """One session, pinged at each acquire."""
    return make_proxy(max=1, ping_interval="always")
