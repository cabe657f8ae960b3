"""The text form of tokens (G17.1)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from apothic.wire.tokens import ALPHABET, KINDS, new_token, token_kind
from apothic_server.testing.guarantees import guarantee

kinds = st.sampled_from(KINDS)
steady = settings(derandomize=True, database=None)


@guarantee("G17.1", "token_format_property")
@steady
@given(kinds)
def test_a_new_token_has_the_promised_form(kind):
    token = new_token(kind)

    assert token.startswith(f"{kind}_")
    assert len(token) == len(kind) + 1 + 32 + 6
    assert set(token[len(kind) + 1 :]) <= set(ALPHABET)
    assert token_kind(token) == kind
    assert len(ALPHABET) ** 32 >= 2**190


@guarantee("G17.1", "token_format_property")
@steady
@given(kinds, st.data())
def test_a_token_with_one_other_character_is_refused(kind, data):
    token = new_token(kind)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters().filter(lambda character: character != token[place]))
    changed = token[:place] + other + token[place + 1 :]

    assert token_kind(changed) is None


@guarantee("G17.1", "token_format_property")
@steady
@given(kinds, st.integers(0, 40), st.text(max_size=3))
def test_a_cut_or_longer_token_is_refused(kind, length, more):
    token = new_token(kind)

    assert token_kind(token[:length]) is None
    assert token_kind(token + (more or "0")) is None
    assert token_kind(token + "\n") is None


@guarantee("G17.1", "token_format_property")
@steady
@given(st.text())
def test_any_text_is_judged_without_an_error(text):
    assert token_kind(text) is None or token_kind(text) in KINDS


def test_tokens_do_not_repeat():
    assert len({new_token("lk") for _ in range(1000)}) == 1000
