"""How many instructions one warm acquire and release cost, counted by callgrind: the same on every run.

``make instructions`` runs it on the compiled wheel. A process that does N of them is counted for two N,
and the difference divided: what starts and ends the interpreter falls out. The loop around the two calls
and the clock are interpreted, and counted with them. It fails when the count has grown by more than a
tenth over what is written down here.
"""

import argparse
import gc
import os
import platform
import re
import shutil
import subprocess
import sys

from proxy.errors import ProxyError
from proxy.pool.limits import Limits
from proxy.pool.pool import Pool
from proxy.pool.session import Backend, Opener, Session, Waiter

# By Python: instructions when the pool had one server and no policies but the first dozen. Later figures
# belong beside these, not in their place, unless something was made faster.
WRITTEN_DOWN = {"3.11": 5118}
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
    gc.disable()
    for _ in range(count):
        release(acquire(asker))


def counted(count: int) -> int:
    """The instructions of a process that does it ``count`` times."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += [sys.executable, "-B", __file__, "--do", str(count)]
    # A dict's order of buckets is part of the count.
    env = {**os.environ, "PYTHONHASHSEED": "0"}
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stderr
    found = re.search(r"Collected : (\d+)", told)
    if found is None:
        raise SystemExit(f"callgrind said nothing of instructions:\n{told}")
    return int(found.group(1))


def main() -> int:
    """Count, compare, say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--do", type=int, help="do it so many times and say nothing")
    wanted = parser.parse_args().do
    if wanted is not None:
        acquire_and_release(wanted)
        return 0
    if shutil.which("valgrind") is None:
        raise SystemExit("there is no valgrind (apt-get install valgrind)")
    each = (counted(MANY) - counted(FEW)) / (MANY - FEW)
    version = ".".join(platform.python_version_tuple()[:2])
    before = WRITTEN_DOWN.get(version)
    print(f"one acquire and release, Python {version}: {each:.0f} instructions", end="")
    if before is None:
        print(f"; nothing is written down for Python {version}")
        return 0
    print(f", {each / before:.2f} of the {before} written down")
    return 0 if each <= before * 1.1 else 1


if __name__ == "__main__":
    sys.exit(main())
