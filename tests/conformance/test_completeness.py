"""Nothing is left out: each behaviour and each parameter has its test, or a reason why it has none."""

import ast
from collections import Counter
from pathlib import Path

from conformance.ids import BEHAVIOURS, DOES_NOT_APPLY, shown_by
from conformance.parameters import NO_COUNTERPART, PARAMETERS
from proxy.settings.pools import PoolSettings

HERE = Path(__file__).parent
CHAPTERS = {
    "test_acquire.py": "A",
    "test_order.py": "O",
    "test_health.py": "H",
    "test_release.py": "R",
    "test_ageing.py": "ILD",
    "test_endpoints.py": "E",
    "test_partitions.py": "KPTU",
    "test_affinity.py": "F",
    "test_closing.py": "C",
    "test_begin_ahead.py": "B",
}


def names_in(name: str) -> list[str]:
    """The names of the tests in a file."""
    tree = ast.parse((HERE / name).read_text())
    return [
        node.name
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
    ]


def test_each_behaviour_has_one_test_or_a_reason() -> None:
    found = Counter(
        shown for name in CHAPTERS for test in names_in(name) if (shown := shown_by(test)) is not None
    )
    problems = [
        f"{name} ({line}): {found[name]} tests, {'a' if name in DOES_NOT_APPLY else 'no'} reason"
        for name, line in BEHAVIOURS.items()
        if (found[name], name in DOES_NOT_APPLY) not in ((1, False), (0, True))
    ]
    problems += [f"{name}: no such behaviour" for name in found if name not in BEHAVIOURS]
    assert not problems, "\n" + "\n".join(problems)


def test_each_behaviour_is_shown_in_its_chapter() -> None:
    for name, letters in CHAPTERS.items():
        for test in names_in(name):
            shown = shown_by(test)
            assert shown is None or shown[0] in letters, f"{test} is in {name}"


def test_what_real_servers_show_is_one_of_the_behaviours() -> None:
    shown = [shown_by(test) for test in names_in("test_postgres.py")]
    assert shown
    assert all(name is None or name in BEHAVIOURS for name in shown)


def test_each_parameter_has_its_test_or_a_reason() -> None:
    found = set(names_in("test_parameters.py"))
    expected = {f"test_{ours}" for ours in PARAMETERS.values() if ours not in NO_COUNTERPART}
    assert expected - found == set(), "without a test"
    for name, ours in PARAMETERS.items():
        if ours not in NO_COUNTERPART:
            fields = PoolSettings.model_fields
            aliases = {field.alias for field in fields.values()}
            assert ours in fields or ours in aliases, f"{name}: there is no setting {ours}"
