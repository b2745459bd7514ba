"""How a client has to prove who it is at one listener, and what others vouch for: certificates, the kernel.

Which way it is depends on the connection and on what the startup packet says, never on whether the user or
the database exists. Sans-IO; asking the operating system for a name is work for a thread.
"""

from collections.abc import Callable
from typing import Final

from proxy.caller import Caller
from proxy.postgres.certificate_names import names_in
from proxy.postgres.hba import Rules, Visit
from proxy.postgres.mapping import Mapping, may_be
from proxy.postgres.startup import Startup, refused
from proxy.reasons import RefusalReason
from proxy.reception import Refused
from proxy.steps import Conversation, Work

AUTHS: Final = ("scram-sha-256", "md5", "password", "trust", "cert", "peer")
VOUCHED: Final = ("cert", "peer")
_SHOWN: Final = 200  # letters of a certificate's names that the log repeats
_METHOD_NAMES: Final = {"cert": "certificate", "peer": "peer"}


class Way:
    """One way in. ``clientcert`` is "", "verify-ca" (any certificate) or "verify-full" (the user's own)."""

    def __init__(self, method: str, mapping: Mapping | None = None, clientcert: str = "") -> None:
        if method not in AUTHS:
            raise ValueError(f"a listener with auth {method!r} does not exist")
        self.method = method
        self.mapping = mapping
        self.clientcert = "verify-full" if method == "cert" else clientcert


class Ways:
    """All the ways in at one listener: ``usual``, or what the first of ``rules`` says that fits.

    ``maps`` are the maps that rules name; ``name_in`` is the field of a certificate that names the user.
    ``os_user`` gives the name of a user of the operating system by its number; "" where it has none.
    """

    def __init__(
        self,
        usual: Way,
        rules: Rules | None = None,
        maps: dict[str, Mapping] | None = None,
        name_in: str = "cn",
        os_user: Callable[[int], str] = lambda uid: "",
    ) -> None:
        self._usual = usual
        self._rules = rules
        self._maps = maps or {}
        self._name_in = name_in
        self._os_user = os_user

    def choose(self, startup: Startup, caller: Caller, tls: bool) -> Way:
        """The way for this connection. Raises Refused where no rule lets it in."""
        if self._rules is None:
            return self._usual
        kind = {"": "", "database": "logical"}.get(startup.replication, "physical")
        visit = Visit(caller.address, caller.target, tls, startup.user, startup.database, kind)
        rule = self._rules.first(visit)
        if rule is None:
            raise _turned_away(startup, caller, tls, "no rule of hba_file lets in", "no rule fits")
        if rule.method == "reject":
            why = f"the rule in line {rule.line} rejects it"
            raise _turned_away(startup, caller, tls, "a rule of hba_file rejects", why)
        mapping = self._maps[rule.map_name] if rule.map_name else None
        return Way(rule.method, mapping, rule.clientcert)

    def vouch(
        self, way: Way, startup: Startup, caller: Caller, certificate: bytes | None
    ) -> Conversation[None]:
        """See that whoever should vouch for the user does. Raises Refused."""
        if way.clientcert and certificate is None:
            text = "this connection needs a certificate of the client"
            hint = "Set sslcert and sslkey in the client, and sslmode=require or stronger."
            raise _denied(startup, text, "the client showed no certificate", hint)
        if way.clientcert == "verify-full":
            names = names_in(certificate or b"", self._name_in)
            if not any(may_be(way.mapping, name, startup.user) for name in names):
                shown = str(names)[:_SHOWN]
                raise _not_vouched(startup, "cert", f"the {self._name_in} of its certificate is {shown}")
        if way.method == "peer":
            uid = caller.uid
            name: str = "" if uid < 0 else (yield Work(lambda: self._os_user(uid)))
            if not may_be(way.mapping, name, startup.user):
                raise _not_vouched(startup, "peer", f"the process at the other end runs as {name!r} ({uid})")


def unknown(startup: Startup, method: str) -> Refused:
    """Somebody is vouched for, and is not known here: told as if nobody had vouched."""
    return _not_vouched(startup, method, "it is not a known user")


def _not_vouched(startup: Startup, method: str, why: str) -> Refused:
    text = f'{_METHOD_NAMES[method]} authentication failed for user "{startup.user}"'
    return _denied(startup, text, why, "")


def _denied(startup: Startup, text: str, why: str, hint: str) -> Refused:
    log = f"login of user {startup.user!r} failed: {why}"
    return refused(log, "28000", text, hint=hint, reason=RefusalReason.AUTH, before=startup.negotiate)


def _turned_away(startup: Startup, caller: Caller, tls: bool, text: str, why: str) -> Refused:
    place = f'host "{caller.address}"' if caller.address else "the Unix socket"
    what = "replication" if startup.replication == "true" else f'database "{startup.database}"'
    asked = f'{place}, user "{startup.user}", {what}, {"with" if tls else "without"} TLS'
    hint = "The rules are in hba_file of the proxy's listener; the first that fits decides."
    return refused(
        f"{asked}: {why}",
        "28000",
        f"{text} {asked}",
        hint=hint,
        reason=RefusalReason.AUTH,
        before=startup.negotiate,
    )
