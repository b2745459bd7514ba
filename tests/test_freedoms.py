"""What the clients of a pool may choose, as its settings say."""

from typing import Any

import pytest

from proxy.freedoms import terms
from proxy.postgres.own import CCLASS, GETMODE, KEY, PURITY, SHARD_KEY, TAG, TARGET, WAIT_TIMEOUT
from proxy.postgres.terms import Terms
from proxy.settings.pools import PoolSettings

BACKEND = "postgresql://app:secret@db/app"
SHARDS = {"one": {"backend": BACKEND, "keys": ["1"]}, "two": {"backend": BACKEND, "keys": ["2"]}}


def of(**settings: Any) -> Terms:
    place = {} if "endpoints" in settings else {"backend": BACKEND}
    pool = PoolSettings.model_validate(place | settings)
    return terms("app", pool, pool.limits)


def test_by_default_a_client_may_choose_how_it_waits_and_nothing_else() -> None:
    plain = of()
    assert plain.check(GETMODE, "NoWait") == "nowait"
    assert plain.check(WAIT_TIMEOUT, "500ms") == "500ms"
    assert plain.seconds("500ms") == 0.5
    for name, text, why in [
        (GETMODE, "wait", "may not choose getmode wait"),
        (GETMODE, "", "is one of wait"),
        (WAIT_TIMEOUT, "31s", "up to 30s"),
        (WAIT_TIMEOUT, "1", "unit"),
        (CCLASS, "x", "may not choose their cclass"),
        (PURITY, "new", "may not choose their purity"),
        (TAG, "a=b", r"pools\.app\.tags"),
        (KEY, "x", r"pools\.app\.affinity"),
        (SHARD_KEY, "x", r"pools\.app\.route"),
    ]:
        with pytest.raises(ValueError, match=why):
            plain.check(name, text)
    assert plain.check_all({}) == {}
    assert plain.check(PURITY, "self") == "self"


def test_what_the_pool_has_is_shown() -> None:
    shown = of(getmode="wait", cclass="web", purity="new", max=3).shown
    assert shown == {
        GETMODE: "wait",
        WAIT_TIMEOUT: "30s",
        CCLASS: "web",
        PURITY: "new",
        TARGET: "any",
    }


def test_more_is_allowed_where_it_is_listed_and_where_it_matters() -> None:
    assert of(client_may_set=["cclass", "purity"]).check(CCLASS, "x") == "x"
    assert of(client_may_set=["cclass", "purity"]).check(PURITY, "new") == "new"
    assert of(tags="exact").check(TAG, "a=b") == "a=b"
    assert of(affinity="key").check(KEY, "x") == "x"
    with pytest.raises(ValueError, match="may not choose their tag"):
        of(tags="exact", client_may_set=["nowait"]).check(TAG, "a=b")
    with pytest.raises(ValueError, match="may not choose their wait_timeout"):
        of(client_may_set=["nowait"]).check(WAIT_TIMEOUT, "1s")


def test_a_shard_key_must_lead_somewhere() -> None:
    routed = of(endpoints=SHARDS, route={"rule": "list", "default": "one"})
    assert routed.check(SHARD_KEY, "2") == "2"
    assert routed.check_all({}) == {}
    with pytest.raises(ValueError, match="leads to no endpoint"):
        routed.check(SHARD_KEY, "3")
    demanding = of(endpoints=SHARDS, route={"rule": "list"})
    assert demanding.check_all({SHARD_KEY: "1"}) == {SHARD_KEY: "1"}
    with pytest.raises(ValueError, match="needs a shard key"):
        demanding.check_all({})
