import pytest

from proxy.settings import read

APP = '[pools.app]\nbackend = "postgresql://app:x@db/app"\n'
WEB = '[pools.app.priority.web]\nweight = 3\napplication_names = ["web-*", "api"]\n'
BATCH = '[pools.app.priority.batch]\nweight = "0.5"\nusers = ["night"]\napplication_names = ["*"]\n'


def test_everybody_is_in_one_class_unless_there_are_others(configuration) -> None:
    pool = configuration.load(APP).pools["app"]
    assert pool.limits.weights == (1.0,)
    assert pool.priority_of("anybody", "anything") == 0


def test_a_class_is_found_by_user_first_and_then_by_application_name(configuration) -> None:
    pool = configuration.load(APP + WEB + BATCH).pools["app"]
    assert pool.limits.weights == (1.0, 3.0, 0.5)
    find = pool.priority_of
    assert find.names == ("web", "batch")
    assert find("app", "web-1") == 1
    assert find("app", "api") == 1
    assert find("night", "web-1") == 2
    assert find("app", "Web-1") == 2  # capitals count
    assert find("app", "") == 2  # "*" is everything


def test_who_is_in_no_class_is_everybody_else(configuration) -> None:
    find = configuration.load(APP + WEB).pools["app"].priority_of
    assert find("app", "psql") == 0
    assert find("app", "") == 0


def test_a_class_can_be_a_variable(configuration) -> None:
    environ = {
        "PENSTOCK_POOLS__APP__PRIORITY__WEB__WEIGHT": "4",
        "PENSTOCK_POOLS__APP__PRIORITY__WEB__USERS": "a,b",
    }
    pool = configuration.load(APP, **environ).pools["app"]
    assert (pool.limits.weights, pool.priority_of("b", "")) == ((1.0, 4.0), 1)


@pytest.mark.parametrize(
    ("lines", "key", "sentence"),
    [
        ('weight = 0\nusers = ["a"]', "web.weight", "must be above 0"),
        ('weight = -1\nusers = ["a"]', "web.weight", "expected a number from 0 up"),
        ('weight = "1e3"\nusers = ["a"]', "web.weight", "expected a number"),
        ('weight = true\nusers = ["a"]', "web.weight", "expected a number"),
        ("weight = 2", "web", "nobody is in this class"),
        ('user = ["a"]', "web.user", "did you mean pools.app.priority.web.users?"),
        ('users = ["a"]\n[pools.app.priority.api]\nusers = ["a"]', "api.users", "in priority.web already"),
        (
            'application_names = ["*"]\n[pools.app.priority.api]\napplication_names = ["*"]',
            "api.application_names",
            "in priority.web already",
        ),
    ],
)
def test_a_wrong_class_is_refused_with_a_sentence(configuration, lines: str, key: str, sentence: str) -> None:
    mistakes = configuration.mistakes(f"{APP}[pools.app.priority.web]\n{lines}\n")
    assert sentence in mistakes[f"penstock.toml: pools.app.priority.{key}"]


def test_a_class_of_somebody_who_cannot_log_in_is_a_warning(configuration) -> None:
    text = APP + '[pools.app.priority.web]\nusers = ["app", "bob"]\n'
    [(place, sentence)] = read(configuration.write(text), None, {}).warnings()
    assert place == "penstock.toml: pools.app.priority.web.users"
    assert "cannot log in" in sentence
    listed = configuration.write(text + '[users.bob]\npassword = "x"\n')
    assert read(listed, None, {}).warnings() == []
    assert read(configuration.write(text + '[listeners.main]\nauth = "trust"\n'), None, {}).warnings() == []


def test_two_loads_with_classes_are_equal(configuration) -> None:
    assert configuration.load(APP + WEB) == configuration.load(APP + WEB)
