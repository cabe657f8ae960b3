"""Ids as arguments: `jobs:…`, `deployments:…`, `groups:…`."""

from __future__ import annotations

import click


def job_id(_: click.Context, __: click.Parameter, value: str) -> str:
    """Return `value` when it can be the id of a job; whether the job exists is the server's answer."""
    return checked(value, "jobs")


def deployment_id(_: click.Context, __: click.Parameter, value: str) -> str:
    """Return `value` when it can be the id of a deployment."""
    return checked(value, "deployments")


def group_id(_: click.Context, __: click.Parameter, value: str) -> str:
    """Return `value` when it can be the id of a group."""
    return checked(value, "groups")


def checked(value: str, table: str) -> str:
    """Return `value` when it can be an id of a table.

    Raises:
        click.BadParameter: It cannot.
    """
    if not value.removeprefix(f"{table}:") or not value.startswith(f"{table}:"):
        raise click.BadParameter(f"{value!r} is not an id like {table}:01jc5v…")
    return value
