"""What only shows when the ways to log in are seen beside the rest of a listener, or of the configuration.

Each check yields sentences beside the key that they are about; none repeats a value.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from proxy.settings.mistakes import Mistake, nearest

if TYPE_CHECKING:
    from proxy.settings.crosschecks import Tables
    from proxy.settings.listeners import ListenerSettings

# These ask for no secret of the user's.
VOUCHED: Final = frozenset({"trust", "cert", "peer"})
_ONLY_POSTGRES: Final = ("auth_file", "hba_file", "map", "clientcert")


def auth_mistakes(listener: "ListenerSettings") -> Iterator[Mistake]:
    """Yield what is wrong with the ways in at one listener."""
    if listener.protocol != "postgres":
        for key in _ONLY_POSTGRES:
            if getattr(listener, key) not in (None, "off"):
                yield (key,), f'nobody proves who it is when protocol is "{listener.protocol}": leave it out'
        return
    if listener.hba_file is not None:
        yield from _with_rules(listener)
        return
    if listener.auth == "cert" and listener.tls_mode != "verify-ca":
        yield ("auth",), '"cert" needs tls_mode = "verify-ca", and tls_ca_file'
    if listener.auth == "peer" and not _knows_peers(listener):
        yield (
            ("auth",),
            '"peer" needs a Unix socket, as in address = "unix:/run/penstock/.s.PGSQL.6432", whose clients '
            "connect themselves (without proxy_protocol)",
        )
    if listener.clientcert != "off" and listener.tls_mode != "verify-ca":
        yield ("clientcert",), 'needs tls_mode = "verify-ca", and tls_ca_file'
    if listener.map is not None and listener.auth not in ("cert", "peer") and listener.clientcert == "off":
        yield ("map",), 'goes with auth = "cert" or "peer", or with clientcert = "verify-full"'
    if listener.hba_trust != "local":
        yield ("hba_trust",), "is about the rules of hba_file, and there is none"


def _knows_peers(listener: "ListenerSettings") -> bool:
    # Behind a proxy the process at the other end is the proxy.
    return listener.address.path is not None and listener.proxy_protocol == "off"


def _with_rules(listener: "ListenerSettings") -> Iterator[Mistake]:
    for key in ("auth", "map", "clientcert"):
        if key in listener.model_fields_set:
            yield (key,), "the rules of hba_file say this for each connection: keep one of them"
    if listener.rules is None:
        return
    guarded = listener.address.local and listener.proxy_protocol == "off"
    for rule in listener.rules.all:
        where = f"line {rule.line}: "
        # What can never fit here does no harm: one file may serve several listeners.
        needs_certificate = bool(rule.clientcert) and listener.address.path is None
        if needs_certificate and (listener.tls_mode == "disable" or listener.tls_ca_file is None):
            yield (
                ("hba_file",),
                where + "a certificate is only asked for with tls_ca_file, and a tls_mode other than "
                '"disable"',
            )
        if rule.method == "peer" and listener.proxy_protocol != "off":
            yield ("hba_file",), where + "peer does not know clients behind proxy_protocol, only the proxy"
        is_here = rule.is_loopback_only() and listener.proxy_protocol == "off"
        if rule.method == "trust" and listener.hba_trust == "local" and not (guarded or is_here):
            yield (
                ("hba_file",),
                where + "trust lets everybody in, so it is for local, 127.0.0.1/32 and ::1/128 only; use "
                'scram-sha-256, or say hba_trust = "any" where that is meant',
            )


def ways_in(listener: "ListenerSettings") -> set[str]:
    """The methods that some client of this listener may be asked for."""
    if listener.rules is not None:
        return listener.rules.methods() - {"reject"}
    return {str(listener.auth)}


def maps_mistakes(tables: "Tables") -> Iterator[Mistake]:
    """Maps that do not exist."""
    known = tables.names("maps")
    hint = f"the maps are: {', '.join(sorted(known)) or 'none'}"
    for name, listener in tables.listeners.items():
        if listener.map is not None and listener.map not in known:
            close = nearest(listener.map, known)
            said = f"did you mean {close}?" if close else hint
            yield ("listeners", name, "map"), f"names a map that does not exist; {said}"
        for rule in listener.rules.all if listener.rules is not None else ():
            if rule.map_name and rule.map_name not in known:
                yield (
                    ("listeners", name, "hba_file"),
                    f"line {rule.line}: map names one that does not exist; {hint}",
                )


def userlist_mistakes(tables: "Tables") -> Iterator[Mistake]:
    """One user with two secrets: sessions as this user could be opened with one of them only."""
    seen: dict[str, str] = {name: user.secret for name, user in (tables.userlist or {}).items()}
    for name, listener in tables.listeners.items():
        for user, listed in (listener.userlist or {}).items():
            if user not in tables.users and seen.setdefault(user, listed.secret) != listed.secret:
                yield (
                    ("listeners", name, "auth_file"),
                    f"line {listed.line}: another auth_file has another secret for the same user, and the "
                    "server knows one of them only",
                )
