import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from proxy.observe.collector import build_registry

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules.yml"
promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def test_alerts_name_only_metrics_that_exist(daemon: Any) -> None:
    exist = {sample.name for family in build_registry(daemon).collect() for sample in family.samples}
    exist |= {name.removesuffix("_bucket") for name in exist}
    named = set(re.findall(r"\bpenstock_\w+", RULES.read_text("utf-8")))
    assert named
    assert named <= exist


@promtool
def test_promtool_accepts_the_rules() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    cases = Path(__file__).with_name("alerts.yml")
    done = subprocess.run(
        ["promtool", "test", "rules", str(cases)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
