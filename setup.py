"""Compiles the hot rooms with mypyc when the wheel is built; everything else is in pyproject.toml.

The same files run uncompiled, so an install never fails for want of a compiler. Three ways, by the
environment: PENSTOCK_PURE=1 compiles nothing; PENSTOCK_REQUIRE_COMPILED=1 takes every failure for an
error; neither compiles where it can and says so where it cannot. Compiled files go into the wheel,
never beside their sources, where they would shadow later edits.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError, CompileError, LinkError

# The warm path of a query, the login of a client, and the cold rooms that derive from their classes, which
# interpreted ones may not do. One mypyc call compiles them all, so that they call each other natively.
HOT_ROOMS = [
    "proxy/asked.py",
    "proxy/steps.py",
    "proxy/codec.py",
    "proxy/reception.py",
    "proxy/hearing.py",
    "proxy/pool/session.py",
    "proxy/pool/endpoints.py",
    "proxy/pool/ledger.py",
    "proxy/pool/choosing.py",
    "proxy/pool/queueing.py",
    "proxy/pool/growth.py",
    "proxy/pool/exchange.py",
    "proxy/pool/pool.py",
    "proxy/pool/book.py",
    "proxy/pool/stats.py",
    "proxy/pool/limits.py",
    "proxy/postgres/messages.py",
    "proxy/postgres/startup.py",
    "proxy/postgres/ways.py",
    "proxy/postgres/verifier.py",
    "proxy/postgres/scram.py",
    "proxy/postgres/client_proof.py",
    "proxy/postgres/client_login.py",
    "proxy/postgres/errands.py",
    "proxy/postgres/session.py",
    "proxy/postgres/own.py",
    "proxy/postgres/profile.py",
    "proxy/postgres/effects.py",
    "proxy/postgres/state_rules.py",
    "proxy/postgres/state.py",
    "proxy/postgres/begin.py",
    "proxy/postgres/asides.py",
    "proxy/postgres/deferring.py",
    "proxy/postgres/starting.py",
    "proxy/postgres/reading.py",
    "proxy/postgres/statements.py",
    "proxy/postgres/executing.py",
    "proxy/postgres/naming.py",
    "proxy/postgres/unnameable.py",
    "proxy/postgres/deallocating.py",
    "proxy/postgres/marking.py",
    "proxy/postgres/unnamed.py",
    "proxy/postgres/pieces.py",
    "proxy/postgres/noting.py",
    "proxy/postgres/notified.py",
    "proxy/postgres/fanout.py",
    "proxy/postgres/listening.py",
    "proxy/postgres/overheard.py",
    "proxy/postgres/pinning.py",
    "proxy/postgres/reporting.py",
    "proxy/postgres/requests.py",
    "proxy/postgres/completing.py",
    "proxy/postgres/responses.py",
    "proxy/postgres/recovery.py",
    "proxy/postgres/relaying.py",
    "proxy/postgres/replication.py",
    "proxy/postgres/served.py",
    "proxy/postgres/guest.py",
    "proxy/postgres/front.py",
    "proxy/tcp/script.py",
    "proxy/tcp/session.py",
    "proxy/tcp/client.py",
    "proxy/relay/talk.py",
    "proxy/relay/tls_transport.py",
    "proxy/relay/endpoint.py",
    "proxy/relay/holder.py",
    "proxy/relay/outbox.py",
    "proxy/relay/backend.py",
    "proxy/relay/hub.py",
    "proxy/relay/opener.py",
    "proxy/relay/watching.py",
    "proxy/relay/stopwatch.py",
    "proxy/relay/link.py",
    "proxy/relay/preparing.py",
    "proxy/relay/client.py",
    "proxy/relay/pipe.py",
    "proxy/relay/tied.py",
    "proxy/relay/house.py",
    "proxy/relay/learning.py",
    "proxy/relay/entrance.py",
]

ROOT = Path(__file__).parent.resolve()
PURE = os.environ.get("PENSTOCK_PURE") == "1"
REQUIRED = os.environ.get("PENSTOCK_REQUIRE_COMPILED") == "1"
FAILURES = (BaseError, CCompilerError, CompileError, LinkError, OSError)


def say(sentence: str) -> None:
    """Tell whoever builds; pip shows it with -v, and when the build fails."""
    print(f"penstock: {sentence}", file=sys.stderr)


def give_up(reason: str) -> None:
    """Go on without compiling, or stop where compiling was demanded."""
    if REQUIRED:
        raise SystemExit(f"penstock: {reason}, and PENSTOCK_REQUIRE_COMPILED=1 demands compiled modules")
    say(f"{reason}; installing the same modules uncompiled, which costs speed and nothing else")


class BuildHotRooms(build_ext):
    """As setuptools has it, but a compiler that fails half-way leaves nothing compiled at all."""

    def run(self) -> None:
        """Compile everything, or nothing."""
        if self.inplace:
            raise SystemExit("penstock: compiled files beside their sources would shadow them: build a wheel")
        try:
            super().run()
        except FAILURES as failure:
            give_up(f"the C compiler failed ({failure})")
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions = []


def can_compile() -> bool:
    """Whether there is a C compiler that finds Python's headers: tried on one line of C."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text("#include <Python.h>\nint probe(void) { return PY_MAJOR_VERSION; }\n")
        probe = Extension("probe", [str(source)])
        command = build_ext(Distribution({"name": "probe", "ext_modules": [probe]}))
        command.build_lib = command.build_temp = folder
        try:
            command.ensure_finalized()
            command.run()
        except FAILURES:
            return False
    return True


def hot_rooms() -> list[Extension]:
    """The extensions to build: none, where nothing can or shall be compiled."""
    missing = [name for name in HOT_ROOMS if not (ROOT / name).is_file()]
    if missing:
        raise SystemExit(f"penstock: HOT_ROOMS in setup.py names what does not exist: {', '.join(missing)}")
    if PURE:
        say("PENSTOCK_PURE=1, so nothing is compiled")
        return []
    if not can_compile():
        give_up("there is no C compiler, or it does not find Python.h (gcc and python3-dev bring both)")
        return []
    try:
        from mypyc.build import mypycify

        # No config file: types are checked by `make check`, here they only have to be understood,
        # even where a library that a hot room imports is not installed.
        options = ["--config-file=", "--ignore-missing-imports", "--no-warn-unused-ignores"]
        return mypycify([*options, *HOT_ROOMS], opt_level="3", debug_level="0", group_name="penstock")
    except (ImportError, SystemExit) as failure:
        give_up(f"mypyc failed ({failure})")
        return []


def compiles_now() -> bool:
    """Only the commands that make a wheel; asking for metadata need not wait for mypyc."""
    return bool({"bdist_wheel", "build_ext", "build", "install"} & set(sys.argv))


os.chdir(ROOT)
if compiles_now():
    for stale in Path("build").glob("lib*"):  # a module that has been removed would go into the wheel
        shutil.rmtree(stale)
setup(
    ext_modules=hot_rooms() if compiles_now() else [],
    cmdclass={"build_ext": BuildHotRooms},
)
