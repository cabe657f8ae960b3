"""Blob adapters."""
