"""The one version of the three distributions, and the protocol numbers that must agree between processes."""

VERSION = "0.1.0"

LINK_PROTOCOL = 9
"""Worker link protocol; a worker and a server with different numbers refuse each other at `hello`."""

RUNNER_PROTOCOL = 3
"""Frames between worker and runtime; both always come from one release, so a difference is a broken installation."""
