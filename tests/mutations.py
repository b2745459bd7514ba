"""Does a test notice? Breaks the pool in one place at a time, and runs its tests against each.

``python tests/mutations.py [WORD ...]``: every mutation, or those whose name contains one of the words. Each
is made in a copy of the package in a temporary folder; the checkout is not touched. Ends with 1 where one
survives.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUITES = ("tests/pool", "tests/conformance")
MARKS = "not integration and not fuzz and not soak"


@dataclass(frozen=True)
class Mutation:
    """``old`` stands once in ``proxy/pool/<file>.py``, and ``new`` instead of it is wrong."""

    name: str
    file: str
    old: str
    new: str


MUTATIONS = (
    Mutation(
        "whoever is cancelled keeps the session that it was granted",
        "ticket",
        "            pool.release(ticket.session)\n",
        "            pass\n",
    ),
    Mutation(
        "whoever is cancelled stays in the queue",
        "ticket",
        "            pool.withdraw(ticket)\n",
        "            pass\n",
    ),
    Mutation(
        "an opening session is counted twice",
        "ledger",
        "return self.opened + len(self.opening) + len(self.closing)",
        "return self.opened + 2 * len(self.opening) + len(self.closing)",
    ),
    Mutation(
        "what is closing takes no slot",
        "ledger",
        "return self.opened + len(self.opening) + len(self.closing)",
        "return self.opened + len(self.opening)",
    ),
    Mutation(
        "a session in care is not open",
        "ledger",
        "return len(self.busy) + len(self.care) + self.idle",
        "return len(self.busy) + self.idle",
    ),
    Mutation(
        "last come, first served",
        "queueing",
        "        return queue.popleft()\n",
        "        return queue.pop()\n",
    ),
    Mutation(
        "whoever comes to the queue stands in front",
        "queueing",
        "        queue.append(waiter)\n",
        "        queue.appendleft(waiter)\n",
    ),
    Mutation(
        "a waiter who refuses loses the session",
        "exchange",
        "            if session.state != BUSY:\n                return False\n",
        "            return False\n",
    ),
    Mutation(
        "a deadline is looked at one second late",
        "queueing",
        "if waiter.deadline <= now]",
        "if waiter.deadline + 1.0 <= now]",
    ),
    Mutation(
        "an old session is handed out",
        "ledger",
        "return now >= session.expires or session.generation != self.generation",
        "return session.generation != self.generation",
    ),
    Mutation(
        "a session of an older generation is handed out",
        "ledger",
        "return now >= session.expires or session.generation != self.generation",
        "return now >= session.expires",
    ),
    Mutation(
        "the longest idle is handed out first",
        "ledger",
        "session = lane[-1] if self.limits.reuse == LIFO else lane[0]",
        "session = lane[0] if self.limits.reuse == LIFO else lane[-1]",
    ),
    Mutation(
        "a failed ping keeps its session",
        "care",
        '            self._failed(session, _REASONS[care], str(error) or "timed out")\n',
        "            self._done(session)\n",
    ),
    Mutation(
        "min is not filled again",
        "growth",
        "and ledger.opened + len(ledger.opening) < floor",
        "and ledger.opened + len(ledger.opening) < at_least",
    ),
    Mutation(
        "the reaper goes below min",
        "growth",
        "while ledger.opened > ledger.limits.min and",
        "while ledger.opened > 0 and",
    ),
    Mutation(
        "forceget has no end",
        "ledger",
        "return self.limits.ceiling if waiter.getmode == FORCEGET else self.limits.max",
        "return 10**9 if waiter.getmode == FORCEGET else self.limits.max",
    ),
    Mutation(
        "a surplus session is kept",
        "ledger",
        "(1 if session.state == OPENING else 0) > self.limits.max",
        "0 > self.limits.max + 99",
    ),
    Mutation(
        "the end of a session frees no slot when its close hangs",
        "ending",
        "                backend.abandon()\n            finally:\n                self.gone(session)",
        "                backend.abandon()\n            finally:\n                pass",
    ),
    Mutation(
        "an idle session is not peeked at",
        "exchange",
        "if not self.limits.peek or session.backend is None or not session.backend.peek():",
        "if True:",
    ),
    Mutation(
        "a failed open keeps its slot",
        "opening",
        "        for one in given_up:\n            self._gone(one)\n",
        "        for one in given_up[1:]:\n            self._gone(one)\n",
    ),
    Mutation(
        "an endpoint has no bound",
        "endpoints",
        "(most is not None and len(endpoint.sessions) >= most)",
        "False",
    ),
    Mutation(
        "the core makes room first",
        "choosing",
        "return session.core, min(",
        "return not session.core, min(",
    ),
    Mutation(
        "two clients of one key get two sessions",
        "choosing",
        "return bool(waiter.affinity) and waiter.affinity in ledger.shared",
        "return False",
    ),
    Mutation(
        "nowait does not count on what is being opened",
        "queueing",
        "return idle + free + returning",
        "return idle + free",
    ),
    Mutation(
        "who is cut by force is not told",
        "exchange",
        "            backend.take_away(detail)\n",
        "            pass\n",
    ),
    Mutation(
        "what is being opened goes on after the end",
        "operating",
        "    pool.opening.stop()\n",
        "",
    ),
    Mutation(
        "a session that comes home is not known to be alive",
        "ledger",
        "        session.idle_since = session.proven_at = now\n",
        "        session.idle_since = now\n",
    ),
    Mutation(
        "a lost session keeps its key",
        "ledger",
        "CLOSING)\n        if session.affinity:\n            self.unshare(session)\n",
        "CLOSING)\n",
    ),
    Mutation(
        "a class is served whose turn it is not",
        "queueing",
        "    while at and queue[at - 1].rank > waiter.rank:\n",
        "    while False:\n",
    ),
    Mutation(
        "a busy session is kept when max is lowered",
        "operating",
        "    ledger.excess = max(0, ledger.used - limits.ceiling)\n",
        "",
    ),
)


def complaint(mutation: Mutation | None) -> str | None:
    """None when the tests pass on the package with this mutation; else what the first that fails says."""
    with tempfile.TemporaryDirectory(prefix="penstock-mutation-") as folder:
        left_out = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / "proxy", Path(folder) / "proxy", ignore=left_out)
        if mutation is not None:
            changed = Path(folder) / "proxy" / "pool" / f"{mutation.file}.py"
            text = changed.read_text()
            if text.count(mutation.old) != 1:
                raise LookupError(f"{mutation.old!r} is not in {mutation.file}.py, or more than once")
            changed.write_text(text.replace(mutation.old, mutation.new))
        env = os.environ | {"PYTHONPATH": folder, "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        words = ["-x", "-q", "-p", "no:cacheprovider", "-m", MARKS]
        for suite in SUITES:
            try:
                run = subprocess.run(
                    [sys.executable, "-m", "pytest", *words, suite],
                    cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                return f"{suite} hangs"
            if run.returncode != 0:
                failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
                return failed[0] if failed else run.stdout[-500:] + run.stderr[-500:]
    return None


def main(words: list[str]) -> int:
    why = complaint(None)
    if why is not None:
        print(f"the tests fail as it is, and would notice anything: {why}")
        return 1
    chosen = [one for one in MUTATIONS if not words or any(word in one.name for word in words)]
    alive = 0
    for mutation in chosen:
        try:
            why = complaint(mutation)
        except LookupError as outdated:
            print(f"OUTDATED  {mutation.name}\n            {outdated}", flush=True)
            alive += 1
            continue
        print(f"{'noticed ' if why else 'SURVIVES'}  {mutation.name}", flush=True)
        if why is not None:
            print(f"            {why[:150]}", flush=True)
        alive += why is None
    print(f"{len(chosen) - alive} of {len(chosen)} were noticed")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
