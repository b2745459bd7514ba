"""The book of queries: what it counts, and how much it keeps."""

from proxy.pool.book import Book


def test_it_counts_by_fingerprint_and_puts_first_what_took_longest_in_all() -> None:
    book = Book()
    for _ in range(3):
        book.note("a", "select ?", 0.5, 2, False)
    book.note("b", "select x", 2.0, 0, True)
    first, second = book.freeze()
    assert (first.query, first.calls, first.errors, first.rows, first.total) == ("select x", 1, 1, 0, 2.0)
    assert (second.fingerprint, second.calls, second.rows, second.longest) == ("a", 3, 6, 0.5)


def test_it_forgets_what_was_not_asked_for_longest() -> None:
    book = Book(most=3)
    for name in "abcab":
        book.note(name, name, 1.0, 0, False)
    book.note("d", "d", 1.0, 0, False)
    assert {query.fingerprint for query in book.freeze()} == {"a", "b", "d"}
    assert (len(book), book.forgotten) == (3, 1)
    book.clear()
    assert (book.freeze(), book.forgotten) == ((), 0)


def test_a_long_text_is_cut() -> None:
    book = Book()
    book.note("a", "x" * 10_000, 1.0, 0, False)
    assert len(book.freeze()[0].query) == 2_000


def test_so_many_refusals_a_second_are_told() -> None:
    book = Book()
    assert sum(book.may_tell(100.0) for _ in range(50)) == 20
    assert sum(book.may_tell(100.5) for _ in range(50)) == 10
    assert sum(book.may_tell(200.0) for _ in range(50)) == 20
