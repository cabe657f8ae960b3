"""What shells ask while somebody types, and the scripts that make them ask.

A shell runs `apothic` with `_APOTHIC_COMPLETE` set and gets one candidate in a line. In bash a colon ends a word, and
names here have colons (`jobs:…`, `shop::greet`); so bash sends the whole line, and gets what follows the last colon.
"""

from __future__ import annotations

import os

from click.shell_completion import (
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

from apothic.cli.main import COMPLETING

_BASH = """\
_apothic_complete() {
    local IFS=$'\\n'
    COMPREPLY=($(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        _APOTHIC_COMPLETE=bash_complete apothic 2>/dev/null))
}
complete -o nosort -o bashdefault -o default -F _apothic_complete apothic 2>/dev/null ||
    complete -o bashdefault -o default -F _apothic_complete apothic
"""


class BashComplete(ShellComplete):
    """Completion for bash from the line itself; when nothing fits, bash offers files."""

    name = "bash"
    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one that is typed, and what there is of it."""
        line = os.environ.get("COMP_LINE", "")
        words = split_arg_string(line)
        incomplete = words.pop() if words and not line[-1:].isspace() else ""
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """Return a candidate without the part that bash takes for words of its own."""
        if item.type in ("file", "dir"):
            return ""
        breaks = os.environ.get("COMP_WORDBREAKS", "")
        typed = self.get_completion_args()[1]
        kept = max((typed.rfind(mark) for mark in ":=" if mark in breaks), default=-1) + 1
        return str(item.value)[kept:]


def register() -> None:
    """Have click use what is written here; called when a shell asks."""
    add_completion_class(BashComplete)


def scripts() -> dict[str, str]:
    """Return the script of each shell."""
    from apothic.cli.main import cli

    kinds: tuple[type[ShellComplete], ...] = (BashComplete, ZshComplete, FishComplete)
    return {kind.name: kind(cli, {}, "apothic", COMPLETING).source() for kind in kinds}
