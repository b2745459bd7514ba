import subprocess
from collections.abc import Callable
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from proxy.errors import ConfigError
from proxy.settings import Settings, load


class Configuration:
    """Loads text as penstock.toml, in an environment of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ: dict[str, str] = {}
        self.overrides: dict[str, Any] = {}

    def write(self, text: str) -> Path:
        file = self.folder / "penstock.toml"
        file.write_text(text)
        return file

    def load(self, text: str | None = None, **environ: str) -> Settings:
        file = self.write(text) if text is not None else None
        return load(file, self.overrides, {**self.environ, **environ})

    def mistakes(self, text: str | None = None, **environ: str) -> dict[str, str]:
        with pytest.raises(ConfigError) as caught:
            self.load(text, **environ)
        return dict(caught.value.mistakes)

    def only_mistake(self, text: str | None = None, **environ: str) -> str:
        [(place, sentence)] = self.mistakes(text, **environ).items()
        return f"{place}: {sentence}"


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    return Configuration(tmp_path)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    if which("openssl") is None:
        pytest.skip("the openssl command is not here")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "tls.crt", folder / "tls.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-subj", "/CN=penstock", "-days", "2", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


@pytest.fixture
def secret_file(tmp_path: Path) -> Callable[[bytes], Path]:
    def make(content: bytes) -> Path:
        file = tmp_path / "secret"
        file.write_bytes(content)
        return file

    return make
