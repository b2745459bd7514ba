"""Settings as shared objects."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.postgres import profile as room
from proxy.postgres.profile import Profiles, difference

SETTINGS = st.dictionaries(
    st.sampled_from(["client_encoding", "timezone", "application_name"]), st.text(max_size=3)
)


@given(SETTINGS, SETTINGS)
def test_the_same_settings_are_the_same_object(one: dict[str, str], other: dict[str, str]) -> None:
    profiles = Profiles()
    assert (profiles.of(one) is profiles.of(other)) is (one == other)
    assert profiles.of({}) is profiles.empty


@given(SETTINGS, SETTINGS)
def test_the_difference_leads_from_one_to_the_other(have: dict[str, str], want: dict[str, str]) -> None:
    profiles = Profiles()
    result = dict(have)
    changes = difference(profiles.of(have), profiles.of(want))
    for name, value in changes:
        if value is None:
            del result[name]
        else:
            result[name] = value
    assert result == want
    names = [name for name, _ in changes]
    assert "client_encoding" not in names[1:]


def test_a_profile_is_not_changed_by_who_gave_its_settings() -> None:
    settings = {"timezone": "UTC"}
    profile = Profiles().of(settings)
    settings["timezone"] = "CET"
    assert profile.settings == {"timezone": "UTC"}


def test_only_what_clients_choose_is_tracked() -> None:
    profiles = Profiles()
    empty = profiles.empty
    assert profiles.changed_if_tracked(empty, "server_version", "18") is empty
    changed = profiles.changed_if_tracked(empty, "timezone", "UTC")
    assert changed.settings == {"timezone": "UTC"}
    assert profiles.changed_if_tracked(changed, "timezone", "UTC") is changed


def test_clients_that_choose_ever_new_values_cannot_fill_the_memory() -> None:
    profiles = Profiles()
    for number in range(3 * room._CAP):
        profiles.of({"application_name": str(number)})
    assert len(profiles._known) <= room._CAP
