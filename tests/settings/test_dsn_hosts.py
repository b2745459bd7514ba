"""URLs that name several hosts: which servers they mean, and what is said of those that mean nothing."""

import pytest

from proxy.settings.dsn_hosts import parse_servers


def places(text: str) -> list[str]:
    return [address.place for address in parse_servers(text).addresses]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("postgresql://app@a:1,b,c:3/app", ["a:1", "b:5432", "c:3"]),
        ("postgresql://app@/app?host=a,b,c&port=1,2,3", ["a:1", "b:2", "c:3"]),
        ("postgresql://app@/app?host=a%2Cb&port=6000", ["a:6000", "b:6000"]),
        ("postgresql://app@/app?host=a,b", ["a:5432", "b:5432"]),
        ("postgresql://app@[::1]:1,[::2]/app", ["[::1]:1", "[::2]:5432"]),
        ("postgresql://app@/app?host=/run/a,/run/b", ["/run/a/.s.PGSQL.5432", "/run/b/.s.PGSQL.5432"]),
        ("postgresql://app:a,b@a/app", ["a:5432"]),
        ("tcp://cache:6379", ["cache:6379"]),
    ],
)
def test_each_host_is_a_server(text: str, wanted: list[str]) -> None:
    assert places(text) == wanted


def test_everything_else_is_common() -> None:
    servers = parse_servers(
        "postgres://app:secret@a,b:6000/app?sslmode=require&target_session_attrs=read-write"
        "&application_name=x&load_balance_hosts=random"
    )
    assert (servers.target, servers.balance) == ("read-write", "random")
    for address in servers.addresses:
        assert (address.user, address.database, address.sslmode) == ("app", "app", "require")
        assert address.password is not None
        assert address.password.get_secret_value() == "secret"
        assert address.parameters == {"application_name": "x"}
    assert "secret" not in servers.masked()
    assert servers.masked().startswith("postgresql://app:********@a:5432,b:6000/app?")
    again = parse_servers(servers.masked().replace("********", "secret"))
    assert again == servers


def test_sockets_are_shown_as_they_were_given() -> None:
    servers = parse_servers("postgresql://app@/app?host=/run/a,/run/b")
    assert parse_servers(servers.masked()).addresses == servers.addresses


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("postgresql://app@a,,b/app", "a comma too many"),
        ("postgresql://app@a,/app", "a comma too many"),
        ("postgresql://app@/app?host=a,b,c&port=1,2", "3 hosts and 2 ports"),
        ("postgresql://app@a,b:5432,a:5432/app", "a server twice"),
        ("postgresql://app@a,b:nine/app", "the port is not a number"),
        ("postgresql://app@a,b/app?target_session_attrs=leader", "target_session_attrs is one of any, "),
        ("postgresql://app@a/app?load_balance_hosts=1", "load_balance_hosts is one of disable, random"),
        ("postgresql://app@a,b/app?target_session_attrs=any&target_session_attrs=any", "given twice"),
        ("postgresql://app:pa,ss@word@a,b/app", "unescaped"),
        ("postgresql://app@a,b/app?host=c", "the host is given twice"),
    ],
)
def test_what_is_wrong_is_said_without_a_word_of_the_url(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        parse_servers(text)
    assert not any(secret in str(caught.value) for secret in ("pa,ss", "word@", "nine", "leader"))
