"""`apothic profile`: the clouds that somebody uses from here."""

from __future__ import annotations

import os
from dataclasses import dataclass

import click

from apothic._profiles import Profile, Profiles, read_profiles, write_profiles
from apothic.cli.confirming import confirm, yes_option
from apothic.cli.console import print_fields, print_text, say
from apothic.cli.refreshing import show_list
from apothic.cli.settings import Settings, common_options
from apothic.cli.targets import nothing_named
from apothic.config import config_file

VARIABLE = "APOTHIC_PROFILE"


@dataclass(frozen=True)
class Shown:
    """A profile as it is shown; `key` is enough of the key to recognise it."""

    profile: str
    base_url: str
    key: str | None
    active: bool


@click.group()
@common_options
def profile() -> None:
    """Profiles: the clouds that you use from here. `apothic login` makes one."""


@profile.command("list")
@common_options
@click.pass_obj
def list_profiles(settings: Settings) -> None:
    """List the profiles; the active one is used unless a variable or an option names another cloud."""
    known = _read()
    show_list(
        settings,
        lambda: [_shown(one, known) for one in known.known.values()],
        ("PROFILE", "ADDRESS", "KEY", "ACTIVE"),
        lambda one: (one.profile, one.base_url, one.key or "-", "yes" if one.active else ""),
        empty="No profiles: `apothic login URL` makes one. Without any, the cloud running on this machine is used.",
    )


@profile.command()
@click.argument("name", metavar="NAME", required=False)
@click.option("--none", is_flag=True, help="Use no profile, but the cloud running on this machine.")
@common_options
@click.pass_obj
def use(settings: Settings, name: str | None, none: bool) -> None:
    """Use a profile from now on."""
    if (name is None) is not none:
        raise click.UsageError("Give the NAME of a profile, or --none.")
    known = _read()
    if name is not None:
        _named(known, name)
    write_profiles(config_file(os.environ), Profiles(name, known.known))
    if settings.is_for_programs:
        settings.print_document({"active": name})
        return
    print_text(f"Profile {name} is in use." if name else "No profile is in use: the cloud running on this machine is.")
    if os.environ.get(VARIABLE):
        say(f"Note: {VARIABLE} is set and goes before this.")


@profile.command()
@click.argument("name", metavar="NAME", required=False)
@common_options
@click.pass_obj
def show(settings: Settings, name: str | None) -> None:
    """Show a profile; without NAME, the one in use. The key is shown in part only."""
    known = _read()
    wanted = name or os.environ.get(VARIABLE) or known.active
    if wanted is None:
        raise click.UsageError("No profile is in use: name one. `apothic whoami` shows which cloud answers.")
    found = _shown(_named(known, wanted), known)
    if settings.is_for_programs:
        settings.print_document(_document(found))
        return
    active = "yes" if found.active else "no"
    print_fields({"profile": found.profile, "address": found.base_url, "key": found.key or "none", "active": active})


@profile.command()
@click.argument("name", metavar="NAME")
@yes_option
@common_options
@click.pass_obj
def remove(settings: Settings, name: str, yes: bool) -> None:
    """Forget a profile and its key. The key stays valid in its cloud."""
    known = _read()
    gone = _shown(_named(known, name), known)
    confirm(settings, f"Forget profile {name} ({gone.base_url}) and its key?", yes=yes)
    left = {other: one for other, one in known.known.items() if other != name}
    write_profiles(config_file(os.environ), Profiles(None if gone.active else known.active, left))
    if settings.is_for_programs:
        settings.print_document(_document(gone))
    else:
        print_text(f"Profile {name} is gone.")


def _read() -> Profiles:
    return read_profiles(config_file(os.environ))


def _named(known: Profiles, name: str) -> Profile:
    found = known.known.get(name)
    if found is None:
        raise nothing_named("profile", name, known.known, "apothic profile list")
    return found


def _shown(one: Profile, known: Profiles) -> Shown:
    return Shown(one.name, one.base_url, one.shown_key, one.name == known.active)


def _document(one: Shown) -> dict[str, str | bool | None]:
    return {"profile": one.profile, "base_url": one.base_url, "key": one.key, "active": one.active}
