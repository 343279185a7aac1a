"""Lines of keys, held against what the parser of the standard library finds in the same text."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from opsd.configfile.places import Place, lines

TRICKY = '''\
# a comment with [brackets] = "and quotes
title = "a # that is no comment" # but this is
a.b.c = 1
a.b.d = """
multi = "line"
[not.a.table]
\\"""""" # ends with two quotes
literal = \'\'\'
\\\'\'\'
"quoted # key" . 'other.key' = 2

[x] # comment
y = [
  1, # one ]
  [2,
   3,],
  {p = 1, "q r" = [ "}", ']' ]},
]
when = 1979-05-27 07:32:00
[x.z]
w = 1
[[s]]
name = "1"
[[s.t]]
k = 2
[other]
o = 1
[[s]]
name = "2"
[s.u]
v = 3
[x.zz]
'quoted.key'."odd" = 5
[q.r.s]
v = 1
[ q ]
w = 2
empty = []
none = {}
last = ""'''


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Every key and list entry of a document."""
    if place:
        yield place
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*place, index))


def test_every_key_of_a_tricky_file_has_a_line() -> None:
    found = lines(TRICKY)

    assert set(found) == set(places(tomllib.loads(TRICKY)))


def test_the_lines_are_those_on_which_the_keys_stand() -> None:
    found = lines(TRICKY)
    text = TRICKY.splitlines()

    assert text[found["a", "b", "d"] - 1].startswith("a.b.d")
    assert text[found["literal",] - 1].startswith("literal")
    assert text[found["quoted # key", "other.key"] - 1].startswith('"quoted')
    assert text[found["x", "y", 0] - 1].strip().startswith("1,")
    assert text[found["x", "y", 1, 1] - 1].strip() == "3,],"
    assert text[found["x", "y", 2, "q r", 1] - 1].strip().startswith("{p")
    assert text[found["s", 0, "t", 0, "k"] - 1] == "k = 2"
    assert text[found["s", 1, "name"] - 1] == 'name = "2"'
    assert text[found["s", 1, "u", "v"] - 1] == "v = 3"
    assert text[found["x", "zz", "quoted.key", "odd"] - 1].startswith("'quoted.key'")
    assert text[found["last",] - 1 if ("last",) in found else found["q", "last"] - 1] == (
        'last = ""'
    )


def test_a_table_has_the_line_of_its_own_header_not_of_the_first_that_implies_it() -> None:
    assert lines(TRICKY)["q",] == TRICKY.splitlines().index("[ q ]") + 1


KEYS = st.text(min_size=1, max_size=6)
LEAVES = st.one_of(
    st.integers(min_value=-(2**63), max_value=2**63 - 1),
    st.booleans(),
    st.text(max_size=20),
    st.floats(allow_nan=False),
    st.datetimes(),
)
DOCUMENTS = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)
        ),
        max_leaves=12,
    ),
    max_size=4,
)


@given(DOCUMENTS)
def test_every_key_of_any_file_has_a_line(document: dict[str, Any]) -> None:
    text = tomlkit.dumps(document)
    parsed = tomllib.loads(text)

    found = lines(text)

    assert set(found) >= set(places(parsed))
    assert all(1 <= line <= text.count("\n") + 1 for line in found.values())
