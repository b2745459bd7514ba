import pytest

APP = '[pools.app]\nbackend = "postgresql://app:x@db/app"\n'


def test_the_control_socket_is_off_unless_it_is_asked_for(configuration) -> None:
    assert configuration.load(APP).control.address is None
    assert configuration.load(APP + '[control]\naddress = "off"').control.address is None


def test_a_control_socket_is_read_from_the_file_and_the_environment(configuration) -> None:
    address = configuration.load(
        APP + '[control]\naddress = "unix:/run/penstock/control.sock"'
    ).control.address
    assert address.path == "/run/penstock/control.sock"
    other = configuration.load(APP, PENSTOCK_CONTROL__ADDRESS="unix:/tmp/c.sock").control.address
    assert other.path == "/tmp/c.sock"


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ('"127.0.0.1:9128"', "it is never TCP"),
        ('"0.0.0.0:9128"', "it is never TCP"),
        ('"unix:control.sock"', "is absolute"),
        ("9128", "expected"),
        ('""', "it is never TCP"),
    ],
)
def test_the_control_socket_is_never_anything_but_a_unix_socket(
    configuration, value: str, sentence: str
) -> None:
    said = configuration.only_mistake(APP + f"[control]\naddress = {value}")
    assert said.startswith("penstock.toml: control.address: ")
    assert sentence in said


def test_a_typo_in_its_table_is_a_mistake(configuration) -> None:
    assert "did you mean" in configuration.only_mistake(APP + '[control]\nadress = "unix:/tmp/c"')
