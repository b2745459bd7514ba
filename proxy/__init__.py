"""Penstock: any number of clients through a bounded pool of backend sessions."""

__version__ = "0.1.0"
