"""A PostgreSQL of one's own, for the demo and the tests: made on the spot, gone without a trace."""

from proxy.embedded.binaries import EmbeddedUnavailable
from proxy.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "EmbeddedUnavailable"]
