from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from proxy.settings.dsn import BackendAddress, parse_dsn

CANARY = "hunter2canary"


def test_a_url_is_taken_apart() -> None:
    dsn = parse_dsn(
        "postgresql://app:s3cret@db.internal:6000/orders?sslmode=verify-full&application_name=shop"
    )
    assert dsn == BackendAddress(
        host="db.internal",
        port=6000,
        path=None,
        user="app",
        password=SecretStr("s3cret"),
        database="orders",
        sslmode="verify-full",
        parameters={"application_name": "shop"},
    )


def test_the_defaults_are_port_5432_and_sslmode_prefer() -> None:
    dsn = parse_dsn("postgres://app@db/app")
    assert (dsn.port, dsn.sslmode, dsn.password, dsn.parameters) == (5432, "prefer", None, {})


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://app@/app?host=/var/run/postgresql",
        "postgresql://app@%2Fvar%2Frun%2Fpostgresql/app",
        "postgresql:///app?host=/var/run/postgresql/&user=app",
        "postgresql:///?host=/var/run/postgresql&user=app&dbname=app",
    ],
)
def test_a_directory_as_host_is_a_unix_socket(text: str) -> None:
    dsn = parse_dsn(text)
    assert (dsn.host, dsn.path, dsn.user, dsn.database) == (
        None,
        "/var/run/postgresql/.s.PGSQL.5432",
        "app",
        "app",
    )


def test_an_ipv6_host_stands_in_brackets() -> None:
    dsn = parse_dsn("postgresql://app@[::1]:6000/app")
    assert (dsn.host, dsn.port, dsn.place) == ("::1", 6000, "[::1]:6000")


def test_a_password_may_hold_a_colon_or_a_hash_as_libpq_has_it() -> None:
    password = parse_dsn("postgresql://app:a:b#c@db/app").password
    assert password is not None
    assert password.get_secret_value() == "a:b#c"


def test_require_with_a_root_certificate_verifies_as_libpq_does() -> None:
    assert parse_dsn("postgresql://app@db/app?sslmode=require&sslrootcert=/ca.crt").sslmode == "verify-ca"


def test_settings_of_the_server_go_into_the_startup_message() -> None:
    dsn = parse_dsn("postgresql://app@db/app?options=-c%20geqo%3Doff&search_path=a,b&gssencmode=disable")
    assert dsn.parameters == {"options": "-c geqo=off", "search_path": "a,b"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("postgresql://app@h1,h2/app", "a URL names one host"),
        ("postgresql://app@/app?host=h1,h2", "a URL names one host"),
        ("postgresql://app@db/app?connect_timeout=5", "pools.<name>.connect_timeout"),
        ("postgresql://app@db/app?keepalives_idle=5", "pools.<name>.tcp_keepalive_idle"),
        ("postgresql://app@db/app?sslmode=allow", 'use "prefer"'),
        ("postgresql://app@db/app?sslmode=on", "sslmode is one of"),
        ("postgresql://app@db/app?sslmod=require", "did you mean sslmode"),
        ("postgresql://app@db/app?sslcert=/x", "sslkey go together"),
        ("postgresql://app@db/app?require_auth=none", "require_auth is not supported yet"),
        ("postgresql://app@db/app?passfile=/x", "password_file"),
        ("postgresql://app@db/app?a=1&a=2", "given twice"),
        ("postgresql://app@db/app?penstock.getmode=wait", "keys of its table"),
        ("postgresql://app:x@db/app?password=y", "given twice"),
        ("postgresql://app@db/app?x", "name=value"),
        ("postgresql://db/app", "names no user"),
        ("postgresql://app@/app", "names no host"),
        ("postgresql://app@db:0/app", "port"),
        ("postgresql://app@db:99999/app", "port"),
        ("postgresql://app@::1/app", "brackets"),
        ("postgresql://app@db/app/more", "only the database"),
        ("postgresql://app@db/%zz", "two hex digits"),
        ("postgresql://app@db/%ff", "UTF-8"),
        ("postgresql://a%00b@db/app", "zero byte"),
        ("postgresql+asyncpg://app@db/app", "leave the driver out"),
        ("host=db user=app", "key=value"),
        ("redis://db", "only PostgreSQL"),
        ("mysql://db", "expected a URL"),
        ("", "expected a URL"),
    ],
)
def test_what_is_not_supported_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_dsn(text)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "template",
    [
        "postgresql://app:{}@x@db/app",
        "postgresql://app:{}/x@db/app",
        "postgresql://app:x/{}@db/app",
        "postgresql://app:x@{}/y@db/app",
        "postgresql://app:x?{}@db/app",
        "postgresql://app:x@y?{}=z@db/app",
        "postgresql://app:{}/app",
        "postgresql://app:{}%@db/app",
        "postgresql://app:%41{}%zz@db/app",
        "postgresql://app:x@db:{}/app",
        "postgresql://app:x@db/app?sslmode={}",
        "postgresql://app:x@db/app?ssl{}=x",
        "postgresql://app:x@db/app/{}",
        "postgresql://app:x@d b{}/app",
        "{}",
        "{}://x",
    ],
)
def test_no_sentence_repeats_a_part_of_the_url(template: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_dsn(template.format(CANARY))
    assert CANARY not in str(caught.value)


plain = st.text(st.characters(min_codepoint=33, exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


@given(user=plain, password=plain, database=plain, value=plain)
def test_every_text_survives_percent_encoding(user: str, password: str, database: str, value: str) -> None:
    parts = [quote(part, safe="") for part in (user, password, database, value)]
    dsn = parse_dsn("postgresql://{}:{}@db/{}?search_path={}".format(*parts))
    assert (dsn.user, dsn.database, dsn.parameters["search_path"]) == (user, database, value)
    assert dsn.password is not None
    assert dsn.password.get_secret_value() == password


@given(user=plain, database=plain, port=st.integers(1, 65535), socket=st.booleans())
def test_a_masked_url_without_a_password_means_the_same(
    user: str, database: str, port: int, socket: bool
) -> None:
    where = f":{port}" if socket else f"db:{port}"
    query = "host=/var/run/postgresql&sslmode=disable" if socket else "sslmode=verify-full"
    text = f"postgresql://{quote(user, safe='')}@{where}/{quote(database, safe='')}?{query}"
    assert parse_dsn(parse_dsn(text).masked()) == parse_dsn(text)


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_a_sentence(text: str) -> None:
    for candidate in (text, "postgresql://" + text, "postgresql://app@db/app?" + text):
        try:
            parse_dsn(candidate)
        except ValueError as error:
            sentence = str(error)
        else:
            continue
        assert len(sentence) > 20


def test_a_password_is_in_no_repr() -> None:
    dsn = parse_dsn(f"postgresql://app:{CANARY}@db/app")
    assert CANARY not in f"{dsn!r} {dsn} {dsn.masked()} {dsn.place}"


# --- versions of the protocol ---


def test_the_versions_are_libpq_s_and_shown_where_they_are_not_the_default() -> None:
    plain = parse_dsn("postgresql://app@db/app")
    assert (plain.max_protocol_version, plain.min_protocol_version) == ("3.0", "3.0")
    url = "postgresql://app@db/app?max_protocol_version=latest&min_protocol_version=3.2"
    found = parse_dsn(url)
    assert (found.max_protocol_version, found.min_protocol_version) == ("latest", "3.2")
    assert found.parameters == {}
    assert parse_dsn(found.masked()) == found
    assert "protocol_version" not in plain.masked()


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("max_protocol_version=3.1", "max_protocol_version is one of 3.0, 3.2, latest"),
        ("min_protocol_version=4", "min_protocol_version is one of"),
        ("min_protocol_version=3.2", "newer than max_protocol_version"),
    ],
)
def test_versions_that_do_not_exist_or_contradict_each_other(query: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_dsn(f"postgresql://app@db/app?{query}")
