"""Files of certificates that change while the daemon runs: looked at now and then, and read again.

What cannot be loaded changes nothing: the context of before stays, the log says once what was wrong, and
the files are tried again. Looking and reading may be done in a thread; taking over is done on the loop. No
connection that stands is touched here.
"""

import asyncio
import os
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from proxy.relay.tls import Context, ListenerFiles, ServerFiles
from proxy.relay.tls_files import mistakes

_log = structlog.get_logger("penstock")
_LONGEST_SLEEP: Final = 5.0  # seconds until a changed interval is noticed
_GONE: Final = (0, 0, 0, 0)
Stamp = tuple[tuple[int, int, int, int], ...]


class Kept:
    """One set of files and the context that was made of it. Raises OSError with what does not load.

    ``kind`` is "listener" or "pool", ``name`` whose it is. ``loaded`` and ``failed`` count how often the
    files were read again, and how it ended.
    """

    def __init__(self, kind: str, name: str, files: ListenerFiles | ServerFiles) -> None:
        self.kind = kind
        self.name = name
        self.files = files
        self.loaded = 0
        self.failed = 0
        self._stamp = _stamp(files.paths)
        context, why = self._load()
        if context is None:
            raise OSError(f"{kind}s.{name}: {why}")
        self.context = context
        self._tried: Stamp | None = None  # the files as they were when they could not be loaded
        self._said = ""

    def look(self) -> Context | None:
        """Read the files again if they have changed; what they amount to now, or None. Blocks."""
        stamp = _stamp(self.files.paths)
        if stamp == self._stamp:
            return None
        made, why = self._load()
        if made is None and _stamp(self.files.paths) != stamp:
            # They were being exchanged.
            stamp = _stamp(self.files.paths)
            made, why = self._load()
        if made is None:
            self._complain(stamp, why)
            return None
        self._stamp, self._tried, self._said = stamp, None, ""
        return made

    def _load(self) -> tuple[Context | None, str]:
        try:
            return self.files.load(), ""
        except (OSError, ValueError) as error:
            return None, _why(self.files) or str(error)

    def _complain(self, stamp: Stamp, why: str) -> None:
        if stamp != self._tried:
            self.failed += 1
        if why != self._said:
            detail = "the certificates of before stay in use"
            _log.error("certificates_refused", **{self.kind: self.name}, error=why, detail=detail)
        self._tried, self._said = stamp, why

    def take(self, made: Context) -> bool:
        """Use ``made`` from now on; False where nothing but the files' dates has changed."""
        if made.digest == self.context.digest:
            return False
        self.context = made
        self.loaded += 1
        _log.info("certificates_loaded", **{self.kind: self.name})
        return True

    def follow(self, other: "Kept") -> None:
        """Count on from ``other``, which this one replaces."""
        changed = other.context.digest != self.context.digest
        self.loaded, self.failed = other.loaded + changed, other.failed
        if changed:
            _log.info("certificates_loaded", **{self.kind: self.name})


async def watch(
    kept: Callable[[], Iterable[Kept]], interval: Callable[[], float], changed: Callable[[Kept], None]
) -> None:
    """Look at the files every ``interval()`` seconds, for ever; ``changed`` is told what is new, on the loop.

    Infinity looks never. ``kept`` and ``interval`` are asked each time: a reload may change both.
    """
    loop = asyncio.get_running_loop()
    last = loop.time()
    while True:
        left = last + interval() - loop.time()
        if left > 0:
            await asyncio.sleep(min(left, _LONGEST_SLEEP))
            continue
        last = loop.time()
        for one in list(kept()):
            made = await asyncio.to_thread(one.look)
            # A reload may have replaced it meanwhile.
            if made is not None and one in kept() and one.take(made):
                changed(one)


def _stamp(paths: tuple[str, ...]) -> Stamp:
    """What tells one version of the files from another; links are followed, as Kubernetes exchanges those."""
    return tuple(map(_stamp_of, paths))


def _stamp_of(path: str) -> tuple[int, int, int, int]:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return _GONE
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _why(files: ListenerFiles | ServerFiles) -> str:
    """Which setting names a file that does not load, and what is wrong with it."""
    if isinstance(files, ServerFiles):
        found = mistakes(files.cert, files.key, files.rootcert, files.crl)
        named = [("sslrootcert" if which == "ca" else f"ssl{which}", sentence) for which, sentence in found]
    else:
        found = mistakes(files.cert, files.key, files.ca, files.crl)
        named = [(f"tls_{which}_file", sentence) for which, sentence in found]
        for name, cert, key in files.names:
            named += [(f'tls_sni."{name}".{which}_file', text) for which, text in mistakes(cert, key)]
    return "; ".join(f"{setting}: {sentence}" for setting, sentence in named)
