"""What the table of commands lets through to a daemon, and in which words it refuses the rest."""

import inspect

import pytest

from control.orders import Orders
from proxy.control.commands import COMMANDS, CommandRefused, Commands, obey


@pytest.mark.parametrize(
    ("name", "said", "heard"),
    [
        ("pools", {}, ("pools",)),
        ("holders", {"pool": "app"}, ("holders", "app")),
        ("show", {"pool": "app"}, ("show", "app")),
        ("set", {"pool": "app", "values": {"max": "3"}}, ("set", "app", {"max": "3"})),
        ("pause", {}, ("pause", None)),
        ("pause", {"pool": "app"}, ("pause", "app")),
        ("resume", {}, ("resume", None)),
        ("drop", {"pool": "app", "session": 7}, ("drop", "app", 7)),
        ("renew", {"pool": "app"}, ("renew", "app")),
        ("clear", {"pool": "app"}, ("clear", "app")),
        ("close", {"pool": "app"}, ("close", "app", False, False)),
        ("close", {"pool": "app", "force": True}, ("close", "app", True, False)),
        ("close", {"pool": "app", "drain": True}, ("close", "app", False, True)),
        ("reset-stats", {"pool": "app"}, ("reset_stats", "app")),
        ("reload", {}, ("reload",)),
    ],
)
async def test_a_command_reaches_the_daemon_with_what_it_was_told(
    name: str, said: object, heard: tuple[object, ...]
) -> None:
    orders = Orders()
    assert await obey(orders, name, said) == "done"
    assert orders.heard == [heard]


def test_every_method_of_the_interface_is_a_command() -> None:
    methods = {
        name.replace("_", "-")
        for name, _ in inspect.getmembers(Commands, inspect.isfunction)
        if name[0] != "_"
    }
    assert methods == set(COMMANDS)


@pytest.mark.parametrize(
    ("name", "said", "sentence"),
    [
        ("explode", {}, "there is no such command; the commands are: pools, "),
        ("pools", {"pool": "app"}, "pools takes a JSON object with: nothing"),
        ("show", {}, "show needs pool: text"),
        ("show", {"pool": 3}, "show needs pool: text"),
        ("show", [], "show takes a JSON object with: pool"),
        ("show", None, "show takes a JSON object with: pool"),
        ("drop", {"pool": "app", "session": True}, "drop needs session: a whole number"),
        ("drop", {"pool": "app", "session": "7"}, "drop needs session: a whole number"),
        ("close", {"pool": "app", "force": "yes"}, "close needs force: true or false"),
        ("pause", {"pool": None}, "pause needs pool: text"),
        ("set", {"pool": "app", "values": []}, "set needs values: a table of text"),
        ("set", {"pool": "app", "values": {"max": 3}}, "set: every value is text"),
        ("set", {"pool": "app", "max": "3"}, "set takes a JSON object with: pool, values"),
    ],
)
async def test_what_a_command_does_not_take_never_reaches_the_daemon(
    name: str, said: object, sentence: str
) -> None:
    orders = Orders()
    with pytest.raises(CommandRefused) as refusal:
        await obey(orders, name, said)
    assert str(refusal.value).startswith(sentence)
    assert orders.heard == []
