"""What clients may choose for themselves: which texts are right, and what the relay is told."""

import pytest

from postgres.playbook import SHOWN, TERMS_OF_POOL, new_codec
from proxy.postgres.own import CCLASS, GETMODE, KEY, NAMES, PURITY, SHARD_KEY, TAG, WAIT_TIMEOUT
from proxy.postgres.profile import Profiles
from proxy.postgres.terms import TAG_CAP, WORD_CAP, Terms, read_tag, written


def refusing(name: str, text: str) -> str:
    raise ValueError(f"{name} is not for you")


def demanding(name: str, text: str) -> str:
    if name == SHARD_KEY and not text:
        raise ValueError("which shard?")
    return text


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", {}),
        (";;", {}),
        ("a=b", {"a": "b"}),
        (" TimeZone = UTC ; search_path=a, b;", {"timezone": "UTC", "search_path": "a, b"}),
        ("app.team=x=y", {"app.team": "x=y"}),
        ("empty=", {"empty": ""}),
    ],
)
def test_a_tag_is_settings_in_any_order_and_spelling(text: str, pairs: dict[str, str]) -> None:
    assert read_tag(text) == pairs
    assert read_tag(written(pairs)) == pairs


def test_a_tag_is_written_in_one_way() -> None:
    assert TERMS_OF_POOL.check(TAG, "B=2; a=1") == "a=1;b=2" == TERMS_OF_POOL.check(TAG, "a=1;b=2")
    assert TERMS_OF_POOL.check(TAG, ";") == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a", "settings as in"),
        ("=b", "settings as in"),
        ("a b=c", "settings as in"),
        ("a;b=c", "settings as in"),
        ("a=1;A=2", "twice"),
        ("user=root", "may not hold user"),
        ("Penstock.getmode=wait", r"may not hold penstock\.getmode"),
        ("a=b\n", "printable"),
        ("a=" + "é" * (TAG_CAP // 2), "longer than 1024 bytes"),
    ],
)
def test_a_tag_that_is_none_is_refused_with_a_sentence(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        TERMS_OF_POOL.check(TAG, text)


@pytest.mark.parametrize("name", [CCLASS, KEY, SHARD_KEY])
def test_words_are_printable_and_short(name: str) -> None:
    assert TERMS_OF_POOL.check(name, "x" * WORD_CAP) == "x" * WORD_CAP
    for wrong, why in [("x" * (WORD_CAP + 1), "64 bytes"), ("é" * 33, "64 bytes"), ("a\tb", "printable")]:
        with pytest.raises(ValueError, match=why):
            TERMS_OF_POOL.check(name, wrong)


def test_purity_is_self_or_new() -> None:
    assert TERMS_OF_POOL.check(PURITY, " NEW ") == "new"
    with pytest.raises(ValueError, match="self, new"):
        TERMS_OF_POOL.check(PURITY, "default")


def test_the_operator_has_the_last_word_but_nothing_needs_no_permission() -> None:
    terms = Terms("app", SHOWN, refusing, float)
    for name, text in [(CCLASS, "x"), (KEY, "x"), (SHARD_KEY, "x"), (TAG, "a=b"), (PURITY, "new")]:
        with pytest.raises(ValueError, match=f"{name} is not for you"):
            terms.check(name, text)
    assert [terms.check(name, "") for name in (CCLASS, KEY, TAG)] == ["", "", ""]


def test_a_pool_may_demand_a_shard_key_of_everybody() -> None:
    terms = Terms("app", SHOWN, demanding, float)
    for wishes in ({}, {SHARD_KEY: ""}, {CCLASS: "x"}):
        with pytest.raises(ValueError, match="which shard"):
            terms.check_all(wishes)
    assert terms.check_all({SHARD_KEY: "7", CCLASS: ""}) == {SHARD_KEY: "7"}


def test_the_relay_is_told_what_was_chosen_and_what_is_not_any_more() -> None:
    codec = new_codec(Profiles())
    chosen = dict.fromkeys(NAMES, "x") | {GETMODE: "nowait", WAIT_TIMEOUT: "250ms", PURITY: "new"}
    TERMS_OF_POOL.apply(chosen, codec)
    assert (codec.getmode, codec.wait_timeout, codec.wants_new) == ("nowait", 0.25, True)
    assert (codec.cclass, codec.affinity, codec.shard_key) == ("x", "x", "x")
    TERMS_OF_POOL.apply({}, codec)
    assert (codec.getmode, codec.wait_timeout, codec.wants_new) == ("", -1.0, False)
    assert (codec.cclass, codec.affinity, codec.shard_key) == ("", "", "")


def test_the_pool_s_own_purity_holds_for_who_has_chosen_none() -> None:
    codec = new_codec(Profiles())
    terms = Terms("app", {PURITY: "new"}, demanding, float)
    terms.apply({}, codec)
    assert codec.wants_new
    terms.apply({PURITY: "self"}, codec)
    assert not codec.wants_new


def test_what_may_be_chosen_no_longer_is_forgotten_but_the_tag() -> None:
    terms = Terms("app", SHOWN, demanding, float)
    chosen = {CCLASS: "x", TAG: "a=b", GETMODE: "nowait"}
    assert terms.still(chosen) == chosen
    terms.adopt(Terms("app", {}, refusing, float))
    assert terms.still(chosen) == {TAG: "a=b"}
