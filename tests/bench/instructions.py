"""How many instructions of ours one unit of work costs, counted by callgrind: the same on every run.

``make instructions`` runs it on the compiled wheel: a warm acquire and release, and a query through the codec
by each protocol. A process that does N of them is counted for two N, and the difference divided: what
starts and ends the interpreter falls out. The loop around them is interpreted, and counted with them. It
fails when a count has grown by more than a tenth over what is written down here.
"""

import argparse
import gc
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable

from units import EXTENDED, PREPARED, SIMPLE, repeat

from proxy.build import compiled
from proxy.errors import ProxyError
from proxy.pool.limits import Limits
from proxy.pool.pool import Pool
from proxy.pool.session import Backend, Opener, Session, Waiter

# By work and Python. A figure is replaced when something was made faster, or when what it does is worth it.
WRITTEN_DOWN: dict[tuple[str, str], int] = {}
FEW, MANY = 1_000, 11_000


class Asker(Waiter):
    """Takes what it gets."""

    def granted(self, session: Session) -> bool:
        return True

    def refused(self, error: ProxyError) -> None:
        raise error


class NoServer(Opener):
    """Nothing is opened here."""

    async def open(self, session: Session) -> Backend:
        raise NotImplementedError


def acquire_and_release(count: int) -> None:
    """Do it ``count`` times on a pool of four idle sessions."""
    pool = Pool("warm", Limits(max=10), NoServer(), ("orders", "ann"), clock=lambda: 1000.0)
    key, ledger = pool.key("orders", "ann"), pool.ledger
    for _ in range(4):
        session = ledger.open(key, ledger.endpoints.all[0], 1000.0)
        ledger.hand_over(session, 1000.0)
        ledger.rest(session, 1000.0)
    asker = Asker(key)
    acquire, release = pool.try_acquire, pool.release
    for _ in range(count):
        release(acquire(asker))


WORKS: dict[str, Callable[[int], None]] = {
    "acquire": acquire_and_release,
    "simple": lambda count: repeat(SIMPLE)(count),
    "extended": lambda count: repeat(EXTENDED)(count),
    "prepared": lambda count: repeat(PREPARED)(count),
}


def counted(work: str, count: int) -> int:
    """The instructions of a process that does it ``count`` times."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += [sys.executable, "-B", __file__, "--work", work, "--do", str(count)]
    # A dict's order of buckets is part of the count.
    env = {**os.environ, "PYTHONHASHSEED": "0"}
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stderr
    found = re.search(r"Collected : (\d+)", told)
    if found is None:
        raise SystemExit(f"callgrind said nothing of instructions:\n{told}")
    return int(found.group(1))


def compared(work: str, version: str) -> bool:
    """Count one work, and say what came of it; whether it is within its bound."""
    each = (counted(work, MANY) - counted(work, FEW)) / (MANY - FEW)
    before = WRITTEN_DOWN.get((work, version))
    print(f"{work:10} {each:8.0f} instructions", end="")
    if before is None:
        print(f"; nothing is written down for Python {version}")
        return True
    print(f", {each / before:.2f} of the {before} written down")
    return each <= before * 1.1


def main() -> int:
    """Count, compare, say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", choices=WORKS, help="this one alone")
    parser.add_argument("--do", type=int, help="do it so many times and say nothing")
    wanted = parser.parse_args()
    if wanted.do is not None:
        gc.disable()
        WORKS[wanted.work](wanted.do)
        return 0
    if shutil.which("valgrind") is None:
        raise SystemExit("there is no valgrind (apt-get install valgrind)")
    version = ".".join(platform.python_version_tuple()[:2])
    built = "compiled" if compiled() else "not compiled"
    print(f"Python {version}, {built}")
    works = [wanted.work] if wanted.work else list(WORKS)
    kept = [compared(work, version) for work in works]  # all of them are told
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
