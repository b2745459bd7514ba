"""How hard hypothesis looks at the ledger: briefly by default, for long with HYPOTHESIS_PROFILE=fuzz.

The profiles are only registered here: what other rooms' tests use stays as it is.
"""

from hypothesis import HealthCheck, settings

_CALM = [HealthCheck.too_slow, HealthCheck.data_too_large]

settings.register_profile("brief", max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
settings.register_profile(
    "fuzz", max_examples=3000, stateful_step_count=80, deadline=None, suppress_health_check=_CALM
)
