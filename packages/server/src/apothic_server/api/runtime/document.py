"""The committed description of the face; `openapi/runtime.json` at the root of the repository is the same file."""

from __future__ import annotations

from importlib.resources import files


def read_document() -> bytes:
    """Return the bytes of the OpenAPI document."""
    return files("apothic_server.api.runtime").joinpath("openapi.json").read_bytes()
