"""The targets with a mutator of our own: 20,000 executions in every run, always the same ones."""

from __future__ import annotations

import pytest

from apothic_server.testing.guarantees import guarantee

from .mutator import mutated
from .seeds import SEEDS, WORDS
from .targets import TARGETS

EXECUTIONS = 20_000
SHARES = sum(target.share for target in TARGETS.values())


def _withstands(name: str) -> None:
    for data in mutated(SEEDS[name], WORDS[name], EXECUTIONS * TARGETS[name].share // SHARES + 1):
        try:
            TARGETS[name].run(data)
        except Exception as error:
            pytest.fail(f"{name} with {data!r}: {error!r}")


@guarantee("G19.4", "archive_fuzz")
def test_the_archive_target_withstands_what_is_nearly_right() -> None:
    _withstands("archive")


@guarantee("G20.6", "no_5xx_under_fuzz")
@pytest.mark.parametrize("name", ["deployment", "arguments", "archive_parts", "query"])
def test_every_body_and_query_target_withstands_what_is_nearly_right(name: str) -> None:
    _withstands(name)


@pytest.mark.parametrize("name", ["cron", "events", "answers", "heads", "filters", "requirements", "link"])
def test_every_other_target_withstands_what_is_nearly_right(name: str) -> None:
    _withstands(name)


def test_every_target_has_seeds_and_words_and_is_run_here() -> None:
    assert TARGETS.keys() == SEEDS.keys() == WORDS.keys()
    assert sum(EXECUTIONS * target.share // SHARES + 1 for target in TARGETS.values()) >= EXECUTIONS
    run = {"archive", "deployment", "arguments", "archive_parts", "query"}
    run |= {"cron", "events", "answers", "heads", "filters", "requirements", "link"}
    assert run == TARGETS.keys()
