"""Timeouts and the log of slow queries, as they are configured."""

import pytest

from proxy.building import timeouts_of
from proxy.pool.limits import LOG_FINGERPRINT, OFF
from proxy.relay.stopwatch import Timeouts

APP = '[pools.app]\nbackend = "postgresql://app:x@db/app"\n'
TCP = '[pools.cache]\nbackend = "tcp://cache:6379"\n[listeners.main]\nprotocol = "tcp"\npool = "cache"\n'


def test_nothing_has_a_limit_nor_is_watched_until_somebody_says_so(configuration) -> None:
    limits = configuration.load(APP).pools["app"].limits
    assert limits.query_timeout == limits.transaction_timeout == limits.client_idle_timeout == OFF
    assert limits.query_wait_notify == 5.0
    assert (limits.watches, limits.log_statements) == (False, LOG_FINGERPRINT)


@pytest.mark.parametrize("line", ['log_min_duration = "0s"', "query_stats = true"])
def test_either_of_two_settings_has_queries_watched(configuration, line: str) -> None:
    assert configuration.load(APP + line).pools["app"].limits.watches


def test_a_user_may_have_limits_of_its_own(configuration) -> None:
    text = APP + '[users.a]\npassword = "x"\nquery_timeout = "off"\nclient_idle_timeout = "2m"\n'
    text += '[users.b]\npassword = "y"\n'
    assert timeouts_of(configuration.load(text)) == {"a": Timeouts(query=OFF, client_idle=120.0)}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("query_timeout = 30", "unit"),
        ('transaction_timeout = "0s"', "longer than zero"),
        ("log_statement_bytes = 100000", "16384"),
        ('log_statements = "all"', "fingerprint"),
    ],
)
def test_what_makes_no_sense_is_said(configuration, line: str, sentence: str) -> None:
    assert sentence in configuration.only_mistake(APP + line)


@pytest.mark.parametrize(
    "line",
    [
        'query_timeout = "1s"',
        'transaction_timeout = "1s"',
        'client_idle_timeout = "1s"',
        'log_min_duration = "0s"',
        "query_stats = true",
    ],
)
def test_raw_tcp_knows_no_query_and_no_transaction(configuration, line: str) -> None:
    text = TCP.replace("6379", f'6379"\n{line}\n#', 1)
    assert "is for PostgreSQL" in configuration.only_mistake(text)
