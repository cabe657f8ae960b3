"""Checked by the type checker only; see `tests/sdk/test_typing.py`."""
