"""A query without its literals, and what its comments say of who asked it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.postgres.fingerprint import fingerprint, normalised, said

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
# Every literal in a generated query holds this, and nothing else does.
MARK = "7391"


def text_of(query: str) -> str:
    return normalised(query)[0]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("SELECT * FROM t WHERE a=-1 AND b IN (1,2, 3) ;", "select * from t where a = ? and b in (?)"),
        ("insert into t values (1,'a'),(2, 'b'), ($1, $2)", "insert into t values (?)"),
        ('SELECT "Foo".x[3]::int, count(*)', 'select "Foo".x[?]::int, count(*)'),
        ("select 1.5e-10, .5, 0x1F, 1_000", "select ?"),
        ("select E'it\\'s', U&'x', b'1', $$a'b$$, $q$ $$ $q$", "select ?"),
        ("select 'it''s' -- no 'quote\n, a/* x /* y */ 'z */, b", "select ?, a, b"),
        ("SELECT 'never ended", "select ?"),
        ("SELECT $tag$never ended", "select ?"),
        ("select a /* never ended", "select a"),
        ("", ""),
    ],
)
def test_a_query_loses_its_literals_and_its_dress(query: str, text: str) -> None:
    assert text_of(query) == text


def test_what_may_be_a_literal_by_another_setting_of_the_server_ends_the_text() -> None:
    """With standard_conforming_strings off the string goes on behind the backslash."""
    assert "secret" not in text_of(r"SELECT 'it\'s secret', x")


def test_queries_that_differ_only_in_literals_have_the_same_name() -> None:
    one = fingerprint(b"SELECT a FROM t WHERE id = 1 /*route='x'*/")
    other = fingerprint(b"select  a from T where id = '2'")
    assert one[0] == other[0]
    assert one[0] != fingerprint(b"select b from t where id = 1")[0]
    assert len(one[0]) == 16


PIECES = st.sampled_from(
    [
        "select", "FROM", "t_1", '"Quoted ""name"', "count(", ")", "(", ",", ";", "=", "<>", "-", "+", "->>",
        "::", ".", "[", "]", "*", "?", "?|", "\n", " ", "\t", "/* a 'comment */", "-- another '\n",
        "/*/* nested */*/", "NULL", "é", "e", "U&", "x", "$", "@>",
    ]
)  # fmt: skip
LITERALS = st.sampled_from(
    [
        MARK, f"1{MARK}.5e+3", f".{MARK}", f"'{MARK}'", f"'a''{MARK}'", f"E'\\'{MARK}\\\\'", f"$${MARK}$$",
        f"$x$ ' {MARK} $$ $x$", f"U&'{MARK}'", f"B'{MARK}'", f"N' {MARK} -- '", f"'{MARK}\n/*'",
        f"'{MARK}\\'", f"${MARK}",
    ]
)  # fmt: skip


@given(st.lists(st.one_of(PIECES, LITERALS.map(lambda text: f" {text} "))))
def test_no_literal_is_ever_left(pieces: list[str]) -> None:
    query = "".join(pieces)
    assert MARK not in text_of(query)
    # Cut anywhere, as a long query is.
    assert MARK not in text_of(query[: len(query) // 2])


@given(st.one_of(st.text(), st.lists(st.one_of(PIECES, LITERALS)).map(" ".join)))
def test_a_fingerprint_is_its_own_fingerprint(query: str) -> None:
    text = text_of(query)
    assert text_of(text) == text


@given(st.binary(max_size=300))
def test_any_bytes_have_one(query: bytes) -> None:
    name, _, comment = fingerprint(query)
    assert len(name) == 16
    assert len(comment) <= 16


def test_what_sqlcommenter_wrote_is_read() -> None:
    query = f"SELECT 1 /*route='%2Fpolls%20x',traceparent='{PARENT}',who='it\\'s%21'*/"
    assert fingerprint(query.encode())[2] == {"route": "/polls x", "traceparent": PARENT, "who": "it's!"}


@pytest.mark.parametrize(
    "comment",
    [
        "just words",
        "route='x' and more",
        "route=x",
        "route='never ended",
        f"traceparent='{PARENT[:-1]}'",
        f"traceparent='ff{PARENT[2:]}'",
        "traceparent='00-00000000000000000000000000000000-b7ad6b7169203331-01'",
        f"traceparent='{PARENT.upper()}'",
        ",".join(f"k{number}='v'" for number in range(17)),
    ],
)
def test_a_comment_that_is_anything_else_says_nothing(comment: str) -> None:
    assert said([comment]) == {}


def test_a_comment_inside_a_literal_is_none() -> None:
    assert fingerprint(f"SELECT '/*traceparent=''{PARENT}''*/'".encode())[2] == {}


def test_what_a_comment_says_is_bounded() -> None:
    found = said([f"key='{'v' * 1000}'"])
    assert len(found["key"]) == 256
