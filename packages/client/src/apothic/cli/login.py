"""`apothic login` and `apothic whoami`: which cloud this user talks to, and as whom."""

from __future__ import annotations

import ipaddress
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from apothic.cli.console import print_fields, print_text, say
from apothic.cli.settings import Settings, common_options
from apothic.config import Endpoint, config_file, parse_url
from apothic.errors import ConfigError, PermissionDeniedError
from apothic.wire.tokens import token_kind

if TYPE_CHECKING:
    from apothic._answers import Identity

KEY_SIZE_MAX = 4_096


@click.command()
@click.argument("url", metavar="URL")
@click.option("--name", metavar="NAME", help="Name of the profile; without it, the host's.")
@click.option("--key-file", metavar="FILE", help="File with the key; - reads standard input. Else it is asked for.")
@click.option("--insecure", is_flag=True, help="Send the key over plain http to another host.")
@common_options
@click.pass_obj
def login(settings: Settings, url: str, name: str | None, key_file: str | None, insecure: bool) -> None:
    """Keep the address and the key of a cloud as a profile and use it from now on, after checking the key there.

    The key is never an argument, because other users of this machine can read those.
    """
    from apothic._profiles import NAME_RULE, Profile, Profiles, is_profile_name, read_profiles, write_profiles

    endpoint = parse_url(url, source="URL")
    if endpoint.scheme == "http" and not _is_near(endpoint.host) and not insecure:
        raise ConfigError(
            f"{endpoint.url} is plain http to another host, where others can read the key on its way: use https, or "
            "give --insecure.",
            code="plain_http",
        )
    chosen = name or _name_of(endpoint)
    if not is_profile_name(chosen):
        raise click.BadParameter(f"{chosen!r} is no name of a profile: {NAME_RULE}", param_hint="--name")
    file = config_file(os.environ)
    known = read_profiles(file)
    key = _key(settings, key_file)
    identity = _identity(endpoint.url, key)
    profile = Profile(chosen, endpoint.url, key)
    write_profiles(file, Profiles(chosen, {**known.known, chosen: profile}))
    if settings.is_for_programs:
        org, role = (identity.org, identity.role) if identity else (None, None)
        document = {"profile": chosen, "base_url": profile.base_url, "org": org, "role": role}
        settings.print_document({**document, "key": profile.shown_key, "file": str(file)})
        return
    who = f"{identity.role} of {identity.org}" if identity else "a key that may not see whose it is"
    print_text(f"{profile.base_url} knows you as {who}. It is profile {chosen} now, and the one in use.")
    for variable in ("APOTHIC_BASE_URL", "APOTHIC_PROFILE"):
        if os.environ.get(variable):
            say(f"Note: {variable} is set and goes before the profile.")


@click.command()
@common_options
@click.pass_obj
def whoami(settings: Settings) -> None:
    """Show which cloud answers, where its address came from, and whom it takes you for."""
    client = settings.client()
    identity = client.identity()
    if settings.is_for_programs:
        settings.print_document({"base_url": client.base_url, "source": client.endpoint.source, **asdict(identity)})
        return
    key = identity.key
    print_fields(
        {
            "identity": f"{identity.role} of {identity.org}",
            "key": f"{key.prefix}…{key.last4} ({key.name})",
            "may": " ".join(identity.scopes),
            "cloud": f"{client.base_url}, version {identity.server_version}",
            "known from": client.endpoint.source,
        }
    )


def _is_near(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _name_of(endpoint: Endpoint) -> str:
    return endpoint.netloc.strip("[]").replace("]", "").replace(":", "-")


def _key(settings: Settings, file: str | None) -> str:
    """Return the key out of a file, standard input or an answer on the terminal.

    Raises:
        ConfigError: There is no key in it.
        click.UsageError: Nobody can be asked.
    """
    if file == "-":
        text = sys.stdin.read(KEY_SIZE_MAX)
    elif file is not None:
        try:
            with Path(file).open("rb") as opened:
                text = opened.read(KEY_SIZE_MAX).decode("ascii", "replace")
        except OSError as error:
            raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    elif settings.is_for_programs or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(
            "This asks for the key, and nobody can answer here: give --key-file FILE, or - for stdin."
        )
    else:
        text = click.prompt("Key", hide_input=True, err=True)
    if token_kind(text.strip()) != "lk":
        raise ConfigError(
            "This is no key of a cloud: those begin with `lk_` and have 38 characters behind it; copy it again whole.",
            code="key_invalid",
        )
    return text.strip()


def _identity(url: str, key: str) -> Identity | None:
    """Return whom the cloud takes the key for; None when the key may not ask that.

    Raises:
        AuthError: The cloud does not know the key.
    """
    from apothic.client import ControlPlaneClient

    try:
        return ControlPlaneClient(url, api_key=key, allow_pickle=False).identity()
    except PermissionDeniedError:
        return None
