"""How this copy of Penstock was built: what ``--version`` and the build metric say about it.

Must stay free of imports that cost anything: it is read before the configuration is.
"""

import platform

from proxy import __version__


def compiled() -> bool:
    """Whether the hot rooms are compiled to machine code (the ledger stands for all of them)."""
    from proxy.pool import ledger

    return str(ledger.__file__).endswith(".so")


def banner() -> str:
    """One line: name, version, how it was built, and on which Python it runs."""
    how = "compiled" if compiled() else "pure Python"
    return f"penstock {__version__} ({how}, Python {platform.python_version()})"
