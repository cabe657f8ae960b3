"""Seams with at least two real implementations: the clock and the blob store."""
