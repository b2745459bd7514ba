"""A pool with a few settings changed, as ``penstock ctl set`` wants it."""

from pathlib import Path

import pytest

from proxy.errors import ConfigError
from proxy.settings.changing import changed_pool

APP = '[pools.app]\nbackend = "postgresql://app:hunter2@db/app"\nmax = 8\nmin = 2\nwait_timeout = "3s"\n'


def mistakes(settings, **values: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        changed_pool(settings, "app", values)
    return dict(caught.value.mistakes)


def test_what_is_not_changed_stays_as_it_was_given(configuration) -> None:
    settings = configuration.load(APP)
    before, after = settings.pools["app"], changed_pool(settings, "app", {"max": "5"})
    assert after.max == 5
    assert after.model_copy(update={"max": 8}).limits == before.limits
    assert after.dsn == before.dsn
    assert after.model_fields_set == before.model_fields_set


def test_values_are_written_as_in_the_configuration(configuration) -> None:
    settings = configuration.load(APP)
    after = changed_pool(
        settings,
        "app",
        {
            "getmode": "nowait",
            "wait_timeout": "500ms",
            "max_waiting": "off",
            "client_may_set": '["wait"]',
            "peek": "false",
        },
    )
    assert (after.getmode, after.wait_timeout, after.max_waiting) == ("nowait", 0.5, None)
    assert (after.client_may_set, after.peek) == (("wait",), False)


def test_every_mistake_is_said_with_its_setting_and_without_a_value(configuration) -> None:
    settings = configuration.load(APP)
    assert set(mistakes(settings, max="hunter3", wait_timeout="5", getmode="never")) == {
        "max",
        "wait_timeout",
        "getmode",
    }
    assert "hunter" not in str(mistakes(settings, max="hunter3"))
    assert "above max" in mistakes(settings, max="1")["min"]
    assert "did you mean max" in str(mistakes(settings, maxx="1"))


def test_the_sum_of_open_files_is_checked_as_well(configuration) -> None:
    settings = configuration.load(APP)
    assert "file descriptors" in str(mistakes(settings, max="999999999"))


def test_a_password_file_is_not_read_again(configuration, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hunter2\n")
    settings = configuration.load(
        f'[pools.app]\nbackend = "postgresql://app@db/app"\npassword_file = "{file}"\n'
    )
    file.unlink()
    after = changed_pool(settings, "app", {"max": "3"})
    assert after.dsn == settings.pools["app"].dsn
    assert after.max == 3


def test_settings_that_a_preset_gave_follow_what_is_changed(configuration) -> None:
    settings = configuration.load(
        '[pools.app]\nbackend = "postgresql://app:x@db/app"\npreset = "fixed"\nmax = 4\n'
    )
    assert settings.pools["app"].min == 4
    after = changed_pool(settings, "app", {"max": "6"})
    assert (after.min, after.max) == (6, 6)
