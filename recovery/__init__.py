"""Rekindle: bare-metal recovery of virtualization hosts."""

__version__ = "0.1.0"
