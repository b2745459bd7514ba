"""The parameters of the four ancestors, unified, and what each is called here.

Each has a test of its name in test_parameters.py; ``NO_COUNTERPART`` has the reason for one that has none.
"""

# As the unification names it -> as the configuration does.
PARAMETERS = {
    "preset": "preset",
    "min": "min",
    "max": "max",
    "increment": "increment",
    "max_idle": "max_idle",
    "min_per_endpoint": "min_per_endpoint",
    "max_per_endpoint": "max_per_endpoint",
    "evict": "evict",
    "prefill": "prefill",
    "keep_min": "keep_min",
    "getmode": "getmode",
    "wait_timeout": "wait_timeout",
    "max_waiting": "max_waiting",
    "overflow_max": "max_forced",
    "overflow_release": "forced_release",
    "reuse": "reuse",
    "affinity": "affinity",
    "peek": "peek",
    "ping_interval": "ping_interval",
    "ping_mode": "ping_mode",
    "ping_timeout": "ping_timeout",
    "ping_failure": "ping_failure",
    "ping_command": "ping_command",
    "idle_timeout": "idle_timeout",
    "max_lifetime": "max_lifetime",
    "lifetime_jitter": "lifetime_jitter",
    "reap": "reap",
    "reap_batch": "reap_batch",
    "close_timeout": "close_timeout",
    "reset": "reset",
    "reset_timeout": "reset_timeout",
    "put_full": "put_full",
    "session_init": "session_init",
    "labels": "labels",
    "role": "role",
    "tags": "tags",
    "tag_fixup": "tag_fixup",
    "class": "cclass",
    "purity": "purity",
    "stmt_cache": "stmt_cache",
    "begin_ahead": "begin",
    "begin_ahead_max_age": "begin_max_age",
    "homogeneous": "homogeneous",
    "route": "route",
    "boundary": "pool_mode",
    "drain_timeout": "drain_timeout",
    "io_parallel": "io_parallel",
}

NO_COUNTERPART = {
    "stmt_cache": (
        "clients prepare their own statements, and in transaction mode the server's protocol-level ones are"
        " not carried over yet: there is no cache whose size could be set"
    ),
}
