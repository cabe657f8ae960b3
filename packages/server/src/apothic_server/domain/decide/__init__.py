"""Decisions: a snapshot and the time go in, a plan comes out; nothing is touched. Who applies a plan re-checks it."""
