"""Tests of the whole system: real processes, sandboxes, database, SDK and command line."""
