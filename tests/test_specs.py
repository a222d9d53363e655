from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idp.cli.options import split_names
from idp.errors import SelectorError
from idp.specs import parse_spec, split_spec

WORD = st.text("abcdefgh_", min_size=1, max_size=6)
PLAIN = st.one_of(st.integers(-99, 99), st.floats(-9, 9).filter(lambda x: x == x), WORD.map(lambda word: f"x{word}"))
SPEC = st.recursive(
    st.tuples(WORD, st.dictionaries(WORD, PLAIN, max_size=3)),
    lambda inner: st.tuples(WORD, st.dictionaries(WORD, st.one_of(PLAIN, inner), min_size=1, max_size=3)),
    max_leaves=6,
)


def _written(spec):
    """A tree of names and options as one would type it."""
    name, options = spec
    values = {key: f"[{_written(value)}]" if isinstance(value, tuple) else value for key, value in options.items()}
    return f"{name}:{','.join(f'{key}={value}' for key, value in values.items())}" if values else name


def _read(text, like):
    """Parse what should be such a tree, all the way down."""
    name, options = parse_spec(text)
    inner = {key: value for key, value in like[1].items() if isinstance(value, tuple) and key in options}
    return name, {**options, **{key: _read(options[key], value) for key, value in inner.items()}}


@given(SPEC)
def test_what_is_written_is_read(spec):
    assert _read(_written(spec), spec) == spec


@given(st.lists(SPEC, min_size=1, max_size=4))
def test_lists_of_selectors_keep_them_whole(specs):
    written = tuple(_written(spec) for spec in specs)
    assert split_names(",".join(written)) == written


@given(st.text("ab,=:[]", max_size=12))
def test_pieces_are_balanced_and_nothing_is_lost(text):
    try:
        pieces = split_spec(text)
    except SelectorError:
        return
    assert ",".join(pieces) == text
    assert all(piece.count("[") == piece.count("]") for piece in pieces)


def test_brackets_keep_what_they_hold_as_it_is():
    assert parse_spec("cascade:first=[a:b=1,c=[d]],share=0.5") == ("cascade", {"first": "a:b=1,c=[d]", "share": 0.5})
    assert parse_spec("x:model=[5],k=5") == ("x", {"model": "5", "k": 5})
    assert parse_spec("embedding:model=/some/folder") == ("embedding", {"model": "/some/folder"})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cascade:first=[router", "opens a bracket that it never closes"),
        ("cascade:first=router]", "closes a bracket that it never opened"),
        ("cascade:first=]router[", "closes a bracket that it never opened"),
        ("cascade:first=[a][b]", "goes on behind its closing bracket"),
        ("cascade:first=[a]b", "goes on behind its closing bracket"),
        ("cascade:first=", "cannot read the option 'first'"),
    ],
)
def test_broken_ones_say_what_is_broken(spec, message):
    with pytest.raises(SelectorError, match=message):
        parse_spec(spec)
