"""What a guest wants of its pool, and a session that shows what the server reports to one who wants that.

Nothing of the guest is left on the session: whoever holds it next finds it as if the guest had been a client.
"""

from proxy.errors import ProxyError
from proxy.pool.limits import GETMODES, OFF
from proxy.pool.pool import Pool
from proxy.pool.session import Key
from proxy.reasons import DropReason
from proxy.reception import Guest
from proxy.relay.backend import SocketBackend


def terms_of(guest: Guest) -> tuple[int | None, float | None]:
    """The getmode that a guest has chosen, and its wait_timeout in seconds; None: as its pool has it."""
    codec = guest.codec
    getmode = GETMODES.index(codec.getmode) if codec.getmode else None
    return getmode, codec.wait_timeout if codec.wait_timeout >= 0 else None


def key_of(guest: Guest, pool: Pool) -> Key:
    """What the sessions must match that serve this guest."""
    codec = guest.codec
    return pool.key(guest.database, guest.user, codec.cclass, codec.shard_key or None, codec.target)


async def learn(guest: Guest, pool: Pool) -> None:
    """Have a session take the guest's settings, and the guest note what the server reports then.

    Raises ProxyError, OSError.
    """
    codec = guest.codec
    session = await pool.acquire(key_of(guest, pool), *terms_of(guest), tag=codec.tag)
    backend = session.backend
    assert isinstance(backend, SocketBackend)
    try:
        if codec.join(backend.codec):
            pool.counters.fixups += 1
            session.begun_at = OFF  # this ends a transaction that was begun ahead
            await backend.converse(codec.prepare())
        guest.learn(backend.codec)
    except (ProxyError, OSError):
        codec.part()
        pool.recover(session)
        raise
    except BaseException:
        pool.drop(session, DropReason.PREPARE_FAILED)
        raise
    codec.part()
    backend.go_home()
