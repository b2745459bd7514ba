"""Each target, fed with what was bent and broken: briefly here, and guided by coverage in `make fuzz`."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from fuzz.targets import TARGETS, seeds

ROUNDS = 3_000
SECONDS = 30
RUN = Path(__file__).with_name("run.py")


def bent(seed: bytes, seeds_too: list[bytes], chance: Random) -> bytes:
    """The seed with a few things done to it."""
    data = bytearray(seed)
    for _ in range(chance.randint(1, 6)):
        at = chance.randint(0, len(data))
        match chance.randint(0, 5):
            case 0:
                data[at : at + 1] = bytes((chance.randrange(256),))
            case 1:
                del data[at : at + chance.randint(1, 9)]
            case 2:
                data[at:at] = data[at : at + chance.randint(1, 60)]
            case 3:
                other = chance.choice(seeds_too)
                begin = chance.randint(0, len(other))
                data[at:at] = other[begin : begin + chance.randint(1, 80)]
            case 4:
                data[at : at + 4] = chance.choice(
                    (b"\0\0\0\4", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff")
                )
            case 5 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_what_is_promised_comes_out(name: str) -> None:
    chance = Random(f"{name} 1")
    found = seeds(name)
    for seed in found:
        TARGETS[name](seed)
    for _ in range(ROUNDS):
        TARGETS[name](bent(chance.choice(found), found, chance))


@pytest.mark.fuzz
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_else_comes_out_however_long_one_looks(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed (pip install -e '.[fuzz]')")
    done = subprocess.run(
        [sys.executable, str(RUN), name, str(SECONDS), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
