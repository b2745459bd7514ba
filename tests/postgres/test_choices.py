"""SET and SHOW of what a client wants of its pool: class, purity, tag, key."""

import pytest

from postgres.playbook import Scene, bind, execute, parse, sync
from proxy.codec import TERMS
from proxy.postgres.messages import READY_IDLE, parameter_status, query, ready


def set_(name: str, value: str) -> bytes:
    return query(f"SET penstock.{name} = '{value}'")


def test_each_choice_is_told_to_the_relay_shown_and_put_back() -> None:
    scene = Scene(full=True)
    codec = scene.codec
    scene.client(set_("cclass", "web"), set_("key", "k 1"), set_("shard_key", "7"), set_("purity", "new"))
    assert (codec.cclass, codec.affinity, codec.shard_key, codec.wants_new) == ("web", "k 1", "7", True)
    assert scene.settings_changed == 1
    scene.client_got()
    for name, value in [("cclass", "web"), ("key", "k 1"), ("shard_key", "7"), ("purity", "new")]:
        assert scene.client(query(f"SHOW penstock.{name}")).client_told()[1] == f"D {value}"
        scene.client(query(f"SET penstock.{name} = DEFAULT")).client_got()
    assert (codec.cclass, codec.affinity, codec.shard_key, codec.wants_new) == ("", "", "", False)
    assert scene.client(query("SHOW penstock.purity")).client_told()[1] == "D self"
    assert scene.client(query("SHOW penstock.tag")).client_told()[1] == "D "


def test_a_choice_can_be_made_by_the_extended_protocol() -> None:
    scene = Scene(full=True).client(parse("SET penstock.cclass = web"), bind(), execute(), sync())
    assert scene.client_told() == ["1", "2", "C SET", "Z I"]
    assert scene.codec.cclass == "web"


def test_a_wrong_choice_changes_nothing() -> None:
    scene = Scene(full=True).client(set_("cclass", "web"), set_("cclass", "x" * 65), set_("tag", "none"))
    assert scene.client_told() == ["C SET", "Z I", "E 22023", "Z I", "E 22023", "Z I"]
    assert scene.codec.cclass == "web"
    assert scene.codec.tag is None


def test_a_tag_is_settings_that_must_hold() -> None:
    scene = Scene(timezone="CET")
    codec = scene.codec
    assert codec.tag is scene.profiles.of({"timezone": "CET"})
    scene.client(set_("tag", "TimeZone=GMT;application_name=x"))
    assert codec.tag is codec.profile is scene.profiles.of({"timezone": "GMT", "application_name": "x"})
    assert codec.startup_profile is codec.profile
    scene.client(set_("tag", "application_name=y"))
    assert codec.tag is scene.profiles.of({"timezone": "CET", "application_name": "y"})
    scene.client(query("SET penstock.tag = DEFAULT"))
    assert codec.tag is scene.profiles.of({"timezone": "CET"})
    assert codec.startup_profile is codec.login_profile


def test_the_empty_tag_is_a_session_as_it_was_opened() -> None:
    scene = Scene()
    assert scene.codec.tag is None
    scene.client(set_("tag", "timezone=GMT"), set_("tag", ""))
    assert scene.codec.tag is None
    assert scene.client(query("SHOW penstock.tag")).client_told()[-3:] == ["D ", "C SHOW", "Z I"]


def test_what_a_client_has_set_since_outlives_its_tag() -> None:
    scene = Scene().client(set_("tag", "timezone=GMT"))
    scene.client(query("SET TimeZone = 'CET'"))
    scene.server(b"C\0\0\0\x08SET\0" + parameter_status("TimeZone", "CET") + READY_IDLE)
    assert scene.codec.tag is scene.profiles.of({"timezone": "CET"})
    scene.client(query("SET penstock.tag = DEFAULT"))
    assert scene.codec.tag is scene.profiles.of({"timezone": "CET"})


def test_a_setting_that_changes_is_told_to_the_relay_before_the_next_acquire() -> None:
    scene = Scene().client(query("SET TimeZone = 'CET'"))
    scene.server(b"C\0\0\0\x08SET\0" + parameter_status("TimeZone", "CET") + READY_IDLE)
    assert not scene.is_linked
    scene.client(query("SELECT 1"))
    assert scene.flags & TERMS
    scene.server(READY_IDLE).client(query("SELECT 1"))
    assert not scene.flags & TERMS


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_no_tag_is_taken_while_a_session_is_held(mode: str) -> None:
    scene = Scene(mode).client(query("BEGIN")).server(b"C\0\0\0\x0aBEGIN\0" + ready(84))
    scene.client_got()
    scene.client(set_("tag", "timezone=GMT"))
    assert b"EXECUTE" in scene.server_got()  # the server refuses this, and its refusal is replaced
    assert scene.codec.tag is None
    scene.client(set_("cclass", "web"))


def test_a_wish_may_come_with_others_in_one_read() -> None:
    scene = Scene(full=True).client(set_("cclass", "web"), query("SELECT 1"))
    assert scene.flags & TERMS
    assert scene.is_waiting
    assert scene.codec.cclass == "web"
