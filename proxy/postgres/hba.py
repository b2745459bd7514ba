"""Who may come in from where, and how it proves who it is: rules in the format of ``pg_hba.conf``.

The first rule that fits a connection decides; where none does, nobody comes in. Reads text and compares
values: no file is opened, no name is resolved, and nothing here knows which users or databases exist.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from proxy.postgres.hba_words import Word

METHODS: Final = ("trust", "reject", "scram-sha-256", "md5", "password", "cert", "peer")
KINDS: Final = ("local", "host", "hostssl", "hostnossl")
ALL_ADDRESSES: Final = "all"
SAME_HOST: Final = "samehost"

Network = IPv4Network | IPv6Network


class Visit:
    """One connection with what it asks for, as rules look at it.

    ``address`` is where it comes from ("" over a Unix socket) and ``target`` where it was sent to.
    ``replication`` is "" for none, else "physical" or "logical".
    """

    def __init__(
        self, address: str, target: str, tls: bool, user: str, database: str, replication: str = ""
    ) -> None:
        self.source = plain_address(address)
        self.target = plain_address(target)
        self.is_local = address == ""
        self.tls = tls
        self.user = user
        self.database = database
        self.replication = replication


class Rule:
    """One rule. ``network`` is a network, or one of the words; None of a local rule.

    ``map_name`` is "" where names must be the same; ``clientcert`` is "", "verify-ca" or "verify-full".
    ``line`` is where it begins.
    """

    def __init__(
        self,
        kind: str,
        databases: tuple[Word, ...],
        users: tuple[Word, ...],
        network: Network | str | None,
        method: str,
        map_name: str,
        clientcert: str,
        line: int,
    ) -> None:
        self.kind = kind
        self.databases = databases
        self.users = users
        self.network = network
        self.method = method
        self.map_name = map_name
        self.clientcert = clientcert
        self.line = line

    def __repr__(self) -> str:
        return f"<Rule of line {self.line}: {self.kind} {self.method}>"

    @property
    def written(self) -> str:
        """What it says, whichever way it was written."""
        named = [[(word.text, word.quoted) for word in words] for words in (self.databases, self.users)]
        return f"{self.kind} {named} {self.network} {self.method} {self.map_name} {self.clientcert}"

    def fits(self, visit: Visit) -> bool:
        """Whether this rule decides about the connection."""
        return (
            self._fits_place(visit)
            and any(_names_database(word, visit) for word in self.databases)
            and any(_names_user(word, visit.user) for word in self.users)
        )

    def _fits_place(self, visit: Visit) -> bool:
        if visit.is_local or self.kind == "local":
            return visit.is_local and self.kind == "local"
        if self.kind == "hostssl" and not visit.tls:
            return False
        if self.kind == "hostnossl" and visit.tls:
            return False
        source, network = visit.source, self.network
        if isinstance(network, str) or network is None:
            return network == ALL_ADDRESSES or _is_same_host(visit)
        return source is not None and source.version == network.version and source in network

    def is_loopback_only(self) -> bool:
        """Nobody whom it lets in is on another machine."""
        if self.kind == "local" or self.network == SAME_HOST:
            return True
        return not isinstance(self.network, str) and self.network is not None and self.network.is_loopback


class Rules:
    """The rules of one listener, in their order."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.all = tuple(rules)

    def first(self, visit: Visit) -> Rule | None:
        """The rule that decides about a connection; None: nobody may come in like this."""
        for rule in self.all:
            if rule.fits(visit):
                return rule
        return None

    def methods(self) -> set[str]:
        """The methods that some rule names."""
        return {rule.method for rule in self.all}


def plain_address(text: str) -> IPv4Address | IPv6Address | None:
    """An address, an IPv4 one where it is written as an IPv6 one; None where it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _is_same_host(visit: Visit) -> bool:
    # A connection to oneself comes from the very address that it goes to.
    return visit.source is not None and (visit.source.is_loopback or visit.source == visit.target)


def _names_database(word: Word, visit: Visit) -> bool:
    if visit.replication == "physical":
        return word.keyword == "replication"
    if word.keyword == "replication":
        return False
    if word.keyword == "sameuser":
        return visit.database == visit.user
    return word.names(visit.database)


def _names_user(word: Word, user: str) -> bool:
    return word.names(user)
