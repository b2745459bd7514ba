import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.postgres.lines import WrongLines
from proxy.postgres.userlist import account_of, read_userlist
from proxy.postgres.verifier import Verifier

VERIFIER = Verifier.make("secret", b"0123456789abcdef", 2).text()
names = st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), min_size=1, max_size=15)


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


@given(st.dictionaries(names, names))
def test_what_is_written_is_read(users: dict[str, str]) -> None:
    users = {name: secret for name, secret in users.items() if not secret.startswith("SCRAM-")}
    text = "".join(f"  {quoted(name)}\t{quoted(secret)} ignored\n" for name, secret in users.items())
    found = read_userlist(f"; a comment\n\n{text}")
    assert {name: user.secret for name, user in found.items()} == users
    assert [user.line for user in found.values()] == list(range(3, 3 + len(users)))


@given(st.text())
def test_any_text_is_read_or_is_wrong_in_lines_that_exist(text: str) -> None:
    told: list[int] = []
    try:
        read_userlist(text)
    except WrongLines as wrong:
        told = [number for number, _ in wrong.found]
    assert all(1 <= number <= text.count("\n") + 1 for number in told)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('"ann" hush', 'expected "name" "secret"'),
        ("ann hush", 'expected "name" "secret"'),
        ('"ann"', 'expected "name" "secret"'),
        ('"ann" "hush', 'expected "name" "secret"'),
        ('"" "hush"', "1 to 63 bytes"),
        (f'"{"x" * 64}" "hush"', "1 to 63 bytes"),
        ('"ann" "SCRAM-SHA-256$hush"', "a SCRAM verifier"),
        (f'"ann" "{"hush" * 2000}"', "at most 4096 letters"),
        ('"bob" "hush"', "the same user as line 1"),
    ],
)
def test_a_wrong_line_is_told_by_its_number_and_never_by_its_secret(line: str, said: str) -> None:
    with pytest.raises(WrongLines, match=f"line 2: .*{said}") as wrong:
        read_userlist(f'"bob" "x"\n{line}\n')
    assert "hush" not in str(wrong.value)


def test_all_three_kinds_of_secret_make_accounts() -> None:
    assert account_of("ann", "hush").password == "hush"
    assert account_of("ann", VERIFIER).verifier == Verifier.parse(VERIFIER)
    assert account_of("ann", "md5" + "0f" * 16).md5 == "0f" * 16
    assert account_of("ann", "md5 of something").password == "md5 of something"
    nothing = account_of("ann", "", frozenset({"app"}))
    assert not nothing.has_secret()
    assert nothing.may_use("app")
    assert not nothing.may_use("other")
    assert "hush" not in repr(read_userlist('"ann" "hush"'))
