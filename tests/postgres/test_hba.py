import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.postgres.hba import METHODS, Visit
from proxy.postgres.hba_reading import read_hba
from proxy.postgres.lines import WrongLines

TABLE = """
# kind     database      user        address             method  options
local      all           all                             peer    map=here
hostssl    "all", other  ann         10.0.0.0/8          cert
host       app           ann,"bob"   10.1.0.0 255.255.0.0 reject
host       app           /^b         all                 scram-sha-256   # bees
hostnossl  sameuser      all         samehost            md5
host       replication   all         ::1/128             trust
host       /^x[0-9]+$    all         2001:db8::/32       password
hostssl    all           \\
           zoe           0.0.0.0/0                       scram-sha-256 clientcert=verify-ca
host       "sameuser"    all         0.0.0.0/0           md5
"""


def visit(
    address: str = "10.1.2.3",
    user: str = "ann",
    database: str = "app",
    tls: bool = False,
    replication: str = "",
    target: str = "10.9.9.9",
) -> Visit:
    return Visit(address, target, tls, user, database, replication)


@pytest.mark.parametrize(
    ("seen", "line"),
    [
        (visit(""), 3),
        (visit("", replication="physical"), None),
        (visit(database="all", tls=True), 4),
        (visit(database="other", tls=True), 4),
        (visit(database="other"), None),
        (visit(tls=True), 5),
        (visit(user="bob"), 5),
        (visit("::ffff:10.1.2.3", user="bob"), 5),
        (visit("10.2.0.1", user="bob"), 6),
        (visit("192.0.2.1", user="ann"), None),
        (visit("fe80::1%eth0", user="bob"), 6),
        (visit("10.9.9.9", user="app"), 7),
        (visit("127.0.0.1", user="app"), 7),
        (visit("127.0.0.1", user="app", tls=True), None),
        (visit("10.9.9.8", user="app"), None),
        (visit("::1", replication="physical"), 8),
        (visit("::1", user="zed", database="replication"), None),
        (visit("::1", user="zed"), None),
        (visit("2001:db8:1::1", database="x12"), 9),
        (visit("2001:db9::1", database="x12"), None),
        (visit("192.0.2.1", user="zoe", tls=True), 10),
        (visit("192.0.2.1", user="zoe", database="sameuser"), 12),
        (visit("no address", user="bob"), 6),
    ],
)
def test_the_first_rule_that_fits(seen: Visit, line: int | None) -> None:
    rule = read_hba(TABLE).first(seen)
    assert (None if rule is None else rule.line) == line


def test_what_a_rule_says() -> None:
    rules = read_hba(TABLE).all
    assert (rules[0].method, rules[0].map_name) == ("peer", "here")
    assert (rules[1].method, rules[1].clientcert) == ("cert", "verify-full")
    assert rules[7].clientcert == "verify-ca"
    assert [rule.line for rule in rules if rule.is_loopback_only()] == [3, 7, 8]
    assert read_hba(TABLE).methods() == set(METHODS)
    assert [rule.written for rule in rules] == [rule.written for rule in read_hba("\n\n" + TABLE).all]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hostile all all all md5", "the first field is one of local, host"),
        ("include other.conf", "other files are not read"),
        ("host all all md5", "has 4 fields"),
        ("local all all", "has 3 fields"),
        ("host all all 10.0.0.1 md5", "has no mask"),
        ("host all all 10.0.0.0/33 md5", "the address or its mask is none"),
        ("host all all 10.0.0.0 0.0.0.255 md5", "the address or its mask is none"),
        ("host all all db.internal md5", "host names are not resolved"),
        ("host all all .internal md5", "host names are not resolved"),
        ("host all all samenet md5", "samenet is not known"),
        ("host all all 10.0.0.0/8 ident", "the method is one of"),
        ("host all all 10.0.0.0/8 ldap x=y", "the method is one of"),
        ("host all +admins 10.0.0.0/8 md5", "the members of a role"),
        ("host samerole all 10.0.0.0/8 md5", "the members of a role"),
        ("host @dbs all 10.0.0.0/8 md5", "other files are not read"),
        ("host /( all 10.0.0.0/8 md5", "not a regular expression"),
        ("host all all 10.0.0.0/8 cert", "must be hostssl"),
        ("host all all 10.0.0.0/8 md5 clientcert=verify-full", "must be hostssl"),
        ("host all all 10.0.0.0/8 peer", "must be local"),
        ("hostssl all all 10.0.0.0/8 md5 clientcert=1", "clientcert is one of"),
        ("hostssl all all 10.0.0.0/8 cert clientcert=verify-ca", "leave clientcert out"),
        ("hostssl all all 10.0.0.0/8 md5 map=x", "map goes with cert"),
        ("hostssl all all 10.0.0.0/8 cert map=x map=y", "map is given twice"),
        ("hostssl all all 10.0.0.0/8 cert clientname=DN", "only map=... and clientcert=..."),
        ("host all,, all 10.0.0.0/8 md5", "a comma stands"),
        ("host all all 10.0.0.0/8 md5,", "ends in a comma"),
        ('host all "all 10.0.0.0/8 md5', "a quote is not closed"),
    ],
)
def test_a_rule_that_is_not_understood_is_never_passed_over(line: str, said: str) -> None:
    with pytest.raises(WrongLines) as wrong:
        read_hba(f"local all all trust\n{line}\n")
    assert str(wrong.value).startswith("line 2: ")
    assert said in str(wrong.value)


def test_a_file_without_rules_is_wrong_and_every_wrong_line_is_told() -> None:
    with pytest.raises(WrongLines, match="no rule"):
        read_hba("# nothing\n")
    with pytest.raises(WrongLines) as wrong:
        read_hba("host a\nlocal all all trust\nx\n")
    assert [number for number, _ in wrong.value.found] == [1, 3]


words = st.sampled_from(
    ["local", "host", "hostssl", "all", '"', ",", "#", "\\\n", "\n", "/", "10.0.0.0/8", "md5", "map="]
)


@given(st.lists(st.one_of(words, st.text(max_size=4))).map(" ".join))
def test_any_text_is_read_or_is_wrong(text: str) -> None:
    try:
        rules = read_hba(text)
    except WrongLines:
        return
    assert rules.all
