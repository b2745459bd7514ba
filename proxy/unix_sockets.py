"""Files of Unix sockets: a stale one is replaced, a live one is left alone, ours goes with us.

Nothing here reads or writes through a socket.
"""

import contextlib
import os
import socket
import stat


def remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on any more. Raises OSError when it is anything else."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError(f"{path} exists and is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise FileExistsError(f"another process listens on {path}")


def listen(path: str, permissions: int, backlog: int) -> socket.socket:
    """A listening socket at ``path``, in place of a stale one. Raises OSError.

    Nobody can connect before the permissions hold.
    """
    remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        listening.bind(path)
        os.chmod(path, permissions)
        listening.listen(backlog)
    except OSError:
        listening.close()
        raise
    return listening


def remove_own(path: str, inode: int) -> None:
    """Remove the socket at ``path`` if it is still that one: another process may have taken the path over."""
    with contextlib.suppress(OSError):
        if os.stat(path).st_ino == inode:
            os.unlink(path)
