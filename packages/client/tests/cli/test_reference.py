"""docs/reference/cli.md names every command, option, exit code and error code."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import apothic.cli
from apothic.cli.failures import EXIT_CODES
from apothic.cli.main import cli

REPOSITORY = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def reference() -> str:
    return (REPOSITORY / "docs" / "reference" / "cli.md").read_text()


def commands(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        found = group.get_command(ctx, name)
        assert found is not None, f"{prefix} {name} has no module"
        if isinstance(found, click.Group):
            yield from commands(found, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", found


def test_every_command_and_option_is_documented(reference: str):
    missing = [name for name, _ in commands(cli, "apothic") if f"`{name}" not in reference]
    options = {
        option
        for _, found in commands(cli, "apothic")
        for parameter in found.params
        if not getattr(parameter, "hidden", False)
        for option in parameter.opts
        if option.startswith("--")
    }

    assert missing == []
    assert [option for option in sorted(options) if f"`{option}" not in reference] == []


def test_every_exit_code_is_documented(reference: str):
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", reference, re.MULTILINE)}

    assert documented == {0, 1, 2, 130} | {code for _, code in EXIT_CODES}


def test_every_error_code_of_these_modules_is_documented(reference: str):
    package = Path(apothic.cli.__file__).parents[1]
    sources = [
        *(package / "cli").glob("*.py"),
        *(package / f"_{name}.py" for name in ("archive", "sources", "upload_rules")),
    ]
    codes = {code for source in sources for code in re.findall(r'code="([a-z_]+)"', source.read_text())}

    assert "syntax_error" in codes
    assert [code for code in sorted(codes) if f"`{code}`" not in reference] == []
