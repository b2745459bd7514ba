"""File descriptors: every client and every session takes one, so their sum has to fit the process's limit."""

import resource
from typing import Final

from proxy.settings.mistakes import Mistake
from proxy.settings.model import Settings

# Kept free so that accepting and refusing still work when every client is there.
RESERVE: Final = 32
# Standard streams, epoll, listeners, HTTP, DNS, files of certificates.
OWN: Final = 32


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one, and return what the limit then is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):
            pass  # A sandbox may forbid it; the limit is then what it was.
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 2**31 - 1


def descriptors_needed(settings: Settings) -> int:
    """Return how many descriptors are open when every listener and every pool is full."""
    clients = sum(listener.max_clients for listener in settings.listeners.values())
    sessions = sum(pool.limits.ceiling for pool in settings.pools.values())
    return clients + sessions + RESERVE + OWN


def check_descriptors(settings: Settings, limit: int) -> list[Mistake]:
    """Return a mistake, at the listener with the most clients, unless everything fits into ``limit``."""
    needed = descriptors_needed(settings)
    if needed <= limit or not settings.listeners:
        return []
    name, largest = max(settings.listeners.items(), key=lambda item: item[1].max_clients)
    sentence = (
        f"max_clients ({largest.max_clients}) and the pools' sessions need {needed} file descriptors in "
        f"all, and the "
        f"limit is {limit}: raise it (ulimit -n {needed}, or LimitNOFILE={needed} in systemd), or lower "
        f"max_clients"
    )
    return [(("listeners", name, "max_clients"), sentence)]
