"""`apothic completion`: names after the Tab key, in bash, zsh and fish."""

from __future__ import annotations

import os
from pathlib import Path

import click

from apothic.cli.completing import scripts
from apothic.cli.console import print_fields, print_text, say
from apothic.cli.settings import Settings, common_options

SHELLS = ("bash", "zsh", "fish")


@click.group()
@common_options
def completion() -> None:
    """Names after the Tab key: commands, options, apps, functions, jobs, deployments."""


@completion.command()
@click.argument("shell", type=click.Choice(SHELLS))
@common_options
@click.pass_obj
def show(settings: Settings, shell: str) -> None:
    """Print the script that a shell reads to complete names."""
    text = scripts()[shell]
    if settings.is_for_programs:
        settings.print_document({"shell": shell, "script": text})
    else:
        print_text(text)


@completion.command()
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@common_options
@click.pass_obj
def install(settings: Settings, shell: str | None) -> None:
    """Have a shell complete names from its next start on; without SHELL, the one you use. Again is fine.

    Writes the script into your home folder and, for bash and zsh, one line into ~/.bashrc or ~/.zshrc that reads it.
    """
    chosen = shell or _used()
    home = Path(os.environ.get("HOME") or Path.home())
    script, startup = _places(chosen, home)
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(scripts()[chosen])
    is_new = startup is not None and _add_line(startup, f'source "{script}"')
    if settings.is_for_programs:
        document = {
            "shell": chosen,
            "script": str(script),
            "startup": str(startup) if startup else None,
            "is_new": is_new,
        }
        settings.print_document(document)
        return
    print_fields({"script": str(script), **({"read by": str(startup)} if startup else {})})
    say(f"Names are completed in every {chosen} that starts from now on.")


def _used() -> str:
    shell = Path(os.environ.get("SHELL", "")).name
    if shell not in SHELLS:
        raise click.UsageError(f"SHELL does not say which shell you use: name one of {', '.join(SHELLS)}.")
    return shell


def _places(shell: str, home: Path) -> tuple[Path, Path | None]:
    """Return where the script goes, and the file that has to read it."""
    base = os.environ.get("XDG_CONFIG_HOME") or ""
    config = Path(base) if base.startswith("/") else home / ".config"
    if shell == "fish":
        return config / "fish" / "completions" / "apothic.fish", None
    folder = Path(os.environ.get("ZDOTDIR") or home) if shell == "zsh" else home
    return config / "apothic" / f"completion.{shell}", folder / f".{shell}rc"


def _add_line(file: Path, line: str) -> bool:
    """Add a line to a file that may not exist; return whether it was not there yet."""
    text = file.read_text() if file.exists() else ""
    if line in text.splitlines():
        return False
    with file.open("a") as out:
        out.write(f"{'' if not text or text.endswith(chr(10)) else chr(10)}{line}\n")
    return True
