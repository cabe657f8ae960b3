"""What one check of `apothic doctor` found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        name: What was checked.
        state: `ok`, `warning`, `failed` or `skipped`; only `failed` makes the whole fail.
        detail: What was seen.
        fix: What to do about it; None when nothing has to be done.
    """

    name: str
    state: str
    detail: str
    fix: str | None = None


def fine(name: str, detail: str) -> Finding:
    """Return a check that passed."""
    return Finding(name, "ok", detail)


def warned(name: str, detail: str, fix: str) -> Finding:
    """Return a check whose result limits what can be done."""
    return Finding(name, "warning", detail, fix)


def failed(name: str, detail: str, fix: str) -> Finding:
    """Return a check that did not pass."""
    return Finding(name, "failed", detail, fix)


def skipped(name: str, why: str) -> Finding:
    """Return a check that does not apply here."""
    return Finding(name, "skipped", why)
