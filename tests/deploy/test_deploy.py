"""What the files of deploy/ and the Dockerfile promise, read as text: ports, probes, rights, names.

The schemas of Kubernetes and Compose are not checked here; that needs tools of their own.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from proxy import __version__

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
POD = (ROOT / "deploy/kubernetes/pod.yaml").read_text()
SIDECAR = (ROOT / "deploy/kubernetes/component/sidecar.yaml").read_text()
UNIT = (ROOT / "deploy/systemd/penstock.service").read_text()


def without_comments(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def test_the_image_runs_as_a_number_and_without_a_shell() -> None:
    assert re.search(r"^USER 65532:65532$", DOCKERFILE, re.M)
    assert 'ENTRYPOINT ["python", "-m", "proxy"]' in DOCKERFILE
    assert 'CMD ["serve"]' in DOCKERFILE
    assert "STOPSIGNAL SIGTERM" in DOCKERFILE
    assert "PYTHONDONTWRITEBYTECODE=1" in DOCKERFILE


def test_the_image_is_compiled_and_holds_no_secret() -> None:
    assert "PENSTOCK_REQUIRE_COMPILED=1" in DOCKERFILE
    assert not re.search(r"(?i)password|secret|token", DOCKERFILE)


def test_everything_that_the_image_copies_is_let_through() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.M):
        for name in line.split()[:-1]:
            assert name.removeprefix("./") in allowed
            assert (ROOT / name).exists()


@pytest.mark.parametrize("text", [POD, SIDECAR], ids=["pod", "component"])
def test_the_sidecar_is_native_probed_and_hardened(text: str) -> None:
    lines = without_comments(text)
    for wanted in (
        "restartPolicy: Always",
        "path: /startupz",
        "path: /livez",
        "runAsNonRoot: true",
        "readOnlyRootFilesystem: true",
        "allowPrivilegeEscalation: false",
        'drop: ["ALL"]',
        "containerPort: 6432",
        "containerPort: 9127",
        'value: "0.0.0.0:9127"',  # probes come to the pod's address
        f"image: penstock:{__version__}",
    ):
        assert wanted in lines, wanted
    # The database's URL is a secret, and whether the pod is ready is not ours to say by default.
    assert re.search(r"PENSTOCK_DATABASE_URL\n\s+valueFrom:\n\s+secretKeyRef:", text)
    assert "readinessProbe:" not in lines


def test_the_component_is_the_pod_s_sidecar() -> None:
    """They are two files because one is read first and the other is patched in; they must say the same."""

    def sidecar(text: str, end: str | None) -> list[str]:
        lines = without_comments(text)
        return lines[lines.index("initContainers:") : lines.index(end) if end else None]

    assert sidecar(SIDECAR, None) == sidecar(POD, "containers:")


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl")
def test_the_component_puts_the_sidecar_into_a_deployment() -> None:
    command = ["kubectl", "kustomize", str(ROOT / "deploy/kubernetes/example")]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "restartPolicy: Always" in made
    assert "PENSTOCK_POOLS__APP__MAX" in made
    assert "PENSTOCK_DATABASE_URL" in made


def test_the_unit_stays_hardened_and_knows_the_exit_codes() -> None:
    lines = without_comments(UNIT)
    for wanted in ("DynamicUser=yes", "NoNewPrivileges=yes", "ProtectSystem=strict", "LimitNOFILE=65536"):
        assert wanted in lines
    assert "ExecReload=/bin/kill -HUP $MAINPID" in lines
    assert "RestartPreventExitStatus=2 78" in lines


@pytest.mark.parametrize("script", [".ci/run", ".ci/venv"], ids=["run", "venv"])
def test_a_script_is_executable_and_stops_at_the_first_failure(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    assert "set -euo pipefail" in path.read_text()
    subprocess.run(["bash", "-n", str(path)], check=True)
