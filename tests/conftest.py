"""Fixtures that every test may use. Servers live for the whole session, proxies for one test."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy.build import compiled
from proxy.embedded import EmbeddedPostgres, EmbeddedUnavailable
from servers import Certificates, Penstock, debian_programs, lacking, make_certificates


def pytest_configure(config: pytest.Config) -> None:
    """A compiled coroutine hands on an exception by the three-argument throw(), which Python 3.12 calls
    deprecated: mypyc's doing, not ours. Every other warning is an error, on both builds.
    """
    if compiled():
        config.addinivalue_line(
            "filterwarnings", r"ignore:the \(type, exc, tb\) signature of throw\(\):DeprecationWarning"
        )


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """PostgreSQL 18 from the wheel: SCRAM, no TLS. Shared, so leave it as you found it."""
    server = EmbeddedPostgres(options={"max_connections": "200"})
    try:
        server.start()
    except EmbeddedUnavailable as reason:
        lacking(str(reason))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A small CA, certificates for localhost and for the client ``app``."""
    if shutil.which("openssl") is None:
        lacking("there is no openssl command (apt-get install openssl)")
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def debian_postgres(certificates: Certificates) -> Iterator[EmbeddedPostgres]:
    """The distribution's PostgreSQL, with TLS on top of SCRAM."""
    programs = debian_programs()
    if programs is None:
        lacking("there is no PostgreSQL with TLS (apt-get install postgresql)")
    with EmbeddedPostgres(
        bin_dir=programs, tls=certificates.server, options={"max_connections": "200"}
    ) as server:
        yield server


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder with a path short enough for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="penstock-test-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def make_proxy(folder: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Penstock]]:
    """Start Penstock: ``make_proxy(max=2, getmode="nowait")`` for the usual configuration with these
    settings of the pool, or ``make_proxy(text)`` for one of your own (see Penstock.configure).

    ``server`` is the PostgreSQL behind it (the embedded one by default), ``env`` adds variables,
    ``before`` is called in the new process first, and ``wait=False`` returns at once. At the end of the
    test each must exit with 0 and an unsuspicious log, unless ``checked`` was set to False.
    """
    started: list[Penstock] = []

    def make(
        text: str | None = None,
        *,
        server: EmbeddedPostgres | None = None,
        env: dict[str, str] | None = None,
        wait: bool = True,
        before: Callable[[], None] | None = None,
        **pool: object,
    ) -> Penstock:
        home = folder / str(len(started))
        home.mkdir()
        penstock = Penstock(home, server or request.getfixturevalue("postgres"))
        started.append(penstock)
        penstock.configure(text, **pool)
        penstock.start(env, wait=wait, before=before)
        return penstock

    yield make
    for penstock in started:
        penstock.stop()
    for penstock in started:
        penstock.check()


@pytest.fixture
def penstock(make_proxy: Callable[..., Penstock]) -> Penstock:
    """Penstock in its usual configuration, with a pool of at most four sessions."""
    return make_proxy(max=4)
