"""Every setting with its default, unit and bounds; what is wrong with a configuration, and where.

The daemon asks for ``load``; it gets frozen Settings, or one ConfigError that lists every mistake. Nothing in
this package opens a connection, and nothing that it says ever holds a secret.
"""

from proxy.settings.address import Address
from proxy.settings.descriptors import check_descriptors, raise_descriptor_limit
from proxy.settings.dsn import BackendAddress
from proxy.settings.listeners import ListenerSettings
from proxy.settings.loading import Loaded, load, read
from proxy.settings.model import HttpSettings, LogSettings, Settings
from proxy.settings.pools import PoolSettings
from proxy.settings.users import UserSettings

__all__ = [
    "Address",
    "BackendAddress",
    "HttpSettings",
    "ListenerSettings",
    "Loaded",
    "LogSettings",
    "PoolSettings",
    "Settings",
    "UserSettings",
    "check_descriptors",
    "load",
    "raise_descriptor_limit",
    "read",
]
