"""Implementations of ports; each knows one outside thing and no other adapter, store or service."""
