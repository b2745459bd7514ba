"""A canary stands in every place where a secret belongs, and where one could stray; nothing may sing."""

import io
import traceback
from contextlib import redirect_stderr, redirect_stdout

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from proxy.cli import main
from proxy.errors import ConfigError
from proxy.settings import Settings, load, read
from proxy.settings.show import show, summary

CANARY = "canary7f3a"

GOOD = f"""
[listeners.main]
[pools.app]
backend = "postgresql://app:{CANARY}@db/app?sslmode=disable"
[pools.other]
backend = "postgresql://app@db/other"
password = "{CANARY}"
[users.bob]
password = "{CANARY}"
"""


def test_a_right_configuration_shows_no_secret(configuration) -> None:
    file = configuration.write(GOOD)
    loaded = read(file, None, {"PENSTOCK_DATABASE_URL": f"postgresql://app:{CANARY}@db/third"})
    texts = [repr(loaded.settings), str(loaded.settings), show(loaded), summary(loaded), repr(loaded)]
    texts += [repr(pool.dsn) + str(pool.dsn) + repr(pool.limits) for pool in loaded.settings.pools.values()]
    texts += [loaded.settings.model_dump_json(), repr(loaded.settings.model_dump())]
    texts += [repr(user) for user in loaded.settings.users.values()]
    for text in texts:
        assert CANARY not in text
    assert "********" in show(loaded)


WRONG = [
    f'backend = "{CANARY}"',
    f'backend = "postgresql://app:{CANARY}@x@db/app"',
    f'backend = "postgresql://app:x/{CANARY}@db/app"',
    f'backend = "postgresql://app:{CANARY}@db:port/app"',
    f'backend = "postgresql://app:{CANARY}@db/app?sslmode=allow"',
    f'backend = ["{CANARY}"]',
    f'backend = {{ url = "{CANARY}" }}',
    f'backend = "postgresql://app@db/app"\npassword = ["{CANARY}"]',
    f'backend = "postgresql://app@db/app"\npassword = {{ a = "{CANARY}" }}',
    f'backend = "postgresql://app@db/app"\npasswort = "{CANARY}"',
    f'backend = "postgresql://app@db/app"\npassword_file = "{CANARY}"',
    f'backend = "postgresql://app:{CANARY}@db/app"\npassword = "{CANARY}"',
    f'backend = "postgresql://app:{CANARY}@db/app"\nmin = 30',
    f'backend = "postgresql://app:x@db/app"\nmax = "{CANARY}"',
    f'backend = "postgresql://app:x@db/app"\ngetmode = "{CANARY}"',
    f'backend = "postgresql://app:x@db/app"\nwait_timeout = "{CANARY}"',
    f'backend = "postgresql://app:x@db/app"\nmax_waiting = "{CANARY}"',
    f'backend = "postgresql://app:x@db/app"\nclient_may_set = ["{CANARY}"]',
    f'backend = "postgresql://app:x@db/app"\n[users.bob]\nverifier = "{CANARY}"',
    f'backend = "postgresql://app:x@db/app"\n[users.bob]\npassword = 7\nadmin = "{CANARY}"',
    f'backend = "postgresql://app:x@db/app"\n[listeners.a]\naddress = "{CANARY}"',
    f'backend = "postgresql://app:x@db/app"\n[listeners.a]\nunix_socket_mode = "{CANARY}"',
    f'backend = "postgresql://app:x@db/app"\n[listeners.a]\nauth = "{CANARY}"\nprotocol = "{CANARY}"',
    f'backend = "postgresql://app:x@db/app"\n[listeners.a]\ntls_mode = "require"\ntls_cert_file = "{CANARY}"'
    f'\ntls_key_file = "-----BEGIN {CANARY}"',
    f'backend = "postgresql://app:x@db/app"\n[listeners.a]\npool = "{CANARY}"',
    f'backend = "postgresql://app:x@db/app"\n[log]\nlevel = "{CANARY}"',
    f'preset = "{CANARY}"',
    f'[pools.app.endpoints.a]\nbackend = "{CANARY}"',
    f'[pools.app.endpoints.a]\nbackend = "postgresql://app:{CANARY}@db/app"\nkeys = [["{CANARY}"]]',
    f'[pools.app.endpoints.a]\nbackend = "postgresql://app:{CANARY}@db/app"\n[pools.app.endpoints.b]\n'
    f'backend = "postgresql://app:x@db/{CANARY}"',
    f'backend = "postgresql://app:x@db/app"\nsession_init = ["{CANARY}"]',
    f'backend = "postgresql://app:x@db/app"\nreset = "{CANARY}"\nrole = ["{CANARY}"]',
    f'backend = "postgresql://app:x@db/app"\nlabels = {{ a = ["{CANARY}"] }}',
    f'backend = "postgresql://app:x@db/app"\n[pools.app.priority.x]\nweight = "{CANARY}"',
    f'backend = "{CANARY}',
    f"password = {CANARY}",
    f'backend = "postgresql://app:x@db/app"\npassword = """{CANARY}',
]


@pytest.mark.parametrize("lines", WRONG)
def test_a_wrong_configuration_shows_no_secret(configuration, lines: str) -> None:
    file = configuration.write("[pools.app]\n" + lines)
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    said = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + str(caught.value.mistakes)
    result = CliRunner().invoke(main, ["check", "--config", str(file)])
    assert result.exit_code == 78
    assert CANARY not in said + result.output


@pytest.mark.parametrize(
    "name",
    [
        "DATABASE_URL",
        "POOLS",
        "POOLS__APP",
        "POOLS__APP__BACKEND",
        "POOLS__APP__PASWORD",
        "POOLS__APP__PASSWORD__X",
        "USERS__BOB__VERIFIER",
        "USERS__BOB",
        "NONSENSE",
        "PORT",
        "HTTP__ADDRESS",
        "DRAIN_TIMEOUT",
        "CONFIG__X",
    ],
)
def test_a_wrong_variable_shows_no_secret(configuration, name: str) -> None:
    mistakes = configuration.mistakes(GOOD.replace(CANARY, "x"), **{f"PENSTOCK_{name}": CANARY})
    assert CANARY not in str(mistakes)


def test_a_wrong_word_of_the_command_line_shows_no_secret(configuration) -> None:
    file = str(configuration.write(GOOD.replace(CANARY, "x")))
    for word in (
        f"pools.app.pass={CANARY}",
        f"pools.app.max={CANARY}",
        f"x y={CANARY}",
        f'a="{CANARY}',
        f"={CANARY}",
    ):
        result = CliRunner().invoke(main, ["check", "--config", file, "--set", word])
        assert result.exit_code in (2, 78)
        assert CANARY not in result.output


def test_settings_built_directly_show_no_secret_when_they_are_wrong() -> None:
    out = io.StringIO()
    with redirect_stderr(out), redirect_stdout(out), pytest.raises(ValueError) as caught:
        Settings(pools={"app": {"backend": CANARY, "password": [CANARY], CANARY[:3]: CANARY}})
    assert CANARY not in str(caught.value) + repr(caught.value) + out.getvalue()


@given(
    st.text(
        st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="'\""), min_size=3, max_size=10
    )
)
def test_a_password_with_unescaped_characters_is_never_shown(noise: str) -> None:
    password = f"{noise[:2]}QQsecretQQ{noise[2:]}"
    environ = {"PENSTOCK_DATABASE_URL": f"postgresql://app:{password}@db/app"}
    try:
        loaded = read(None, None, environ)
    except ConfigError as error:
        said = str(error)
    else:
        said = show(loaded) + summary(loaded) + repr(loaded.settings)
    assert "QQsecretQQ" not in said
