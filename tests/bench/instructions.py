"""How many instructions of ours one unit of work costs, counted by callgrind: the same on every run.

``make instructions`` runs it on the compiled wheel: a warm acquire and release, the same through the queue,
and a query through the codec by each protocol. A process does a few of each, and another one many of one of
them: the difference, divided, is what that costs, and what starts and ends the interpreter falls out. The
loop around them is interpreted, and counted with them. It fails when a count has grown by more than a tenth
over what is written down here, or when there is nothing compiled to count.
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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # its neighbours, wherever this is started from

from units import EXTENDED, PREPARED, SIMPLE, repeat

from proxy.build import compiled
from proxy.errors import ProxyError
from proxy.pool.limits import WAIT, Limits
from proxy.pool.pool import Pool
from proxy.pool.session import Backend, Opener, Session, Waiter

# By work and Python. A figure is replaced when something was made faster, or when what it does is worth it.
WRITTEN_DOWN: dict[tuple[str, str], int] = {
    ("acquire", "3.13"): 3858,
    ("queued", "3.13"): 9513,
    ("simple", "3.13"): 6758,
    ("extended", "3.13"): 7305,
    ("prepared", "3.13"): 8061,
}
FEW, MANY = 1_000, 11_000
MARGIN = 1.1


class Asker(Waiter):
    """Takes what it gets."""

    session: Session | None = None

    def granted(self, session: Session) -> bool:
        self.session = session
        return True

    def refused(self, error: ProxyError) -> None:
        raise error


class NoServer(Opener):
    """Nothing is opened here."""

    async def open(self, session: Session) -> Backend:
        raise NotImplementedError


def pool_of(idle: int) -> Pool:
    """A pool that is full of idle sessions."""
    pool = Pool("warm", Limits(max=idle), NoServer(), ("orders", "ann"), clock=lambda: 1000.0)
    key, ledger = pool.key("orders", "ann"), pool.ledger
    for _ in range(idle):
        session = ledger.open(key, ledger.endpoints.all[0], 1000.0)
        ledger.hand_over(session, 1000.0)
        ledger.rest(session, 1000.0)
    return pool


def acquire_and_release(count: int) -> None:
    """Do it ``count`` times on a pool of four idle sessions."""
    pool = pool_of(4)
    asker = Asker(pool.key("orders", "ann"))
    acquire, release = pool.try_acquire, pool.release
    for _ in range(count):
        release(acquire(asker))


def queue_and_release(count: int) -> None:
    """One session, and two clients who take turns: whoever has it gives it up to the other, who waits."""
    pool = pool_of(1)
    key = pool.key("orders", "ann")
    here, there = Asker(key), Asker(key)
    here.getmode = there.getmode = WAIT  # a deadline needs a clock that runs
    here.session = pool.try_acquire(here)
    acquire, enqueue, release = pool.try_acquire, pool.enqueue, pool.release
    for _ in range(count):
        if acquire(there) is None:
            enqueue(there)
        release(here.session)
        here, there = there, here


WORKS: dict[str, Callable[[int], None]] = {
    "acquire": acquire_and_release,
    "queued": queue_and_release,
    "simple": lambda count: repeat(SIMPLE)(count),
    "extended": lambda count: repeat(EXTENDED)(count),
    "prepared": lambda count: repeat(PREPARED)(count),
}


def counted(much: str = "") -> int:
    """The instructions of a process that does a few of each work, and many of one."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += [sys.executable, "-B", __file__, "--do", much or "nothing"]
    # A dict's order of buckets is part of the count.
    env = {**os.environ, "PYTHONHASHSEED": "0"}
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stderr
    found = re.search(r"Collected : (\d+)", told)
    if found is None:
        raise SystemExit(f"callgrind said nothing of instructions:\n{told}")
    return int(found.group(1))


def compared(work: str, few: int, version: str) -> bool:
    """Count one work, and say what came of it; whether it is within its bound."""
    each = (counted(work) - few) / (MANY - FEW)
    before = WRITTEN_DOWN.get((work, version))
    print(f"{work:10} {each:8.0f} instructions", end="")
    if before is None:
        print(f"; nothing is written down for Python {version}", flush=True)
        return True
    print(f", {each / before:.2f} of the {before} written down", flush=True)
    return each <= before * MARGIN


def main() -> int:
    """Count, compare, say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", choices=WORKS, help="this one alone")
    parser.add_argument("--do", metavar="WORK", help="do many of this, a few of the others, and say nothing")
    wanted = parser.parse_args()
    if wanted.do is not None:
        gc.disable()
        for name, work in WORKS.items():
            work(MANY if name == wanted.do else FEW)
        return 0
    if shutil.which("valgrind") is None:
        raise SystemExit("there is no valgrind (apt-get install valgrind)")
    if not compiled():
        raise SystemExit("this Python runs uncompiled sources: make instructions counts the compiled wheel")
    version = ".".join(platform.python_version_tuple()[:2])
    print(f"Python {version}, compiled", flush=True)
    few = counted()
    works = [wanted.work] if wanted.work else list(WORKS)
    kept = [compared(work, few, version) for work in works]  # all of them are told
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
