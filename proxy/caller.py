"""Who is at the other end of a new connection. Plain values."""


class Caller:
    """What the kernel says of the other end, or a PROXY header.

    ``address`` is where it comes from ("" over a Unix socket), ``target`` where it was sent to. ``uid`` is
    the user of the operating system that the process at the other end runs as; -1 where that is not known.
    """

    def __init__(self, address: str = "", target: str = "", uid: int = -1) -> None:
        self.address = address
        self.target = target
        self.uid = uid
