"""A PostgreSQL URL that names several hosts, as libpq takes them, turned into one URL for each.

``postgresql://app@a:5432,b,c/app`` and ``?host=a,b,c&port=5432,5433,5434`` mean what they mean to libpq:
one port stands for all hosts, and none is 5432. Takes text apart; dsn.py checks what comes out. As there,
nothing of the text is ever repeated in a sentence.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from proxy.roles import TARGETS
from proxy.settings.dsn import BackendAddress, parse_dsn

BALANCES: Final = ("disable", "random")
_SCHEMES: Final = ("postgresql://", "postgres://")


@dataclass(frozen=True)
class Servers:
    """What one URL says: the servers in their order, and which of them its sessions may be opened on.

    ``target`` and ``balance`` are the URL's target_session_attrs and load_balance_hosts, "" without one.
    """

    addresses: tuple[BackendAddress, ...]
    target: str = ""
    balance: str = ""

    def masked(self) -> str:
        """The URL with asterisks for the password, safe to show."""
        first = self.addresses[0]
        shown = first.masked()
        if len(self.addresses) > 1:
            if first.path is not None:
                directory = quote(first.path.rpartition("/")[0], safe="/")
                others = [address.path.rpartition("/")[0] for address in self.addresses if address.path]
                shown = shown.replace(f"host={directory}", "host=" + quote(",".join(others), safe="/,"), 1)
            else:
                places = ",".join(address.place for address in self.addresses)
                shown = shown.replace(f"@{first.place}/", f"@{places}/", 1)
        for name, value in (("target_session_attrs", self.target), ("load_balance_hosts", self.balance)):
            if value:
                shown += f"{'&' if '?' in shown else '?'}{name}={value}"
        return shown


def parse_servers(text: str) -> Servers:
    """Return the servers that a URL names. Raises ValueError with a sentence, as parse_dsn."""
    text = text.strip()
    if not text.startswith(_SCHEMES):
        return Servers((parse_dsn(text),))
    text, target = _without(text, "target_session_attrs", TARGETS)
    text, balance = _without(text, "load_balance_hosts", BALANCES)
    addresses = tuple(parse_dsn(url) for url in _urls(text))
    if len({address.place for address in addresses}) < len(addresses):
        raise ValueError("the URL names a server twice")
    return Servers(addresses, target, balance)


def _without(text: str, name: str, values: tuple[str, ...]) -> tuple[str, str]:
    """The URL without one parameter, and the parameter's value; "" where it has none."""
    head, mark, query = text.partition("?")
    words = query.split("&") if mark else []
    found = [word.partition("=")[2] for word in words if word.partition("=")[0] == name]
    if not found:
        return text, ""
    if len(found) > 1:
        raise ValueError("a parameter is given twice")
    if found[0] not in values:
        raise ValueError(f"{name} is one of {', '.join(values)}")
    rest = "&".join(word for word in words if word.partition("=")[0] != name)
    return f"{head}?{rest}" if rest else head, found[0]


def _urls(text: str) -> list[str]:
    scheme, _, rest = text.partition("://")
    end = min((place for place in (rest.find("/"), rest.find("?")) if place >= 0), default=len(rest))
    login, at, where = rest[:end].rpartition("@")
    if "," in where:
        return [f"{scheme}://{login}{at}{host}{rest[end:]}" for host in _filled(where.split(","))]
    head, mark, query = text.partition("?")
    words = query.split("&") if mark else []
    hosts = _listed(words, "host")
    if len(hosts) < 2:
        return [text]
    return [
        _with_host(head, words, host, port) for host, port in zip(hosts, _ports(words, hosts), strict=True)
    ]


def _filled(hosts: list[str]) -> list[str]:
    if not all(hosts):
        raise ValueError("the URL has a comma too many among its hosts")
    return hosts


def _listed(words: list[str], name: str) -> list[str]:
    for word in words:
        if word.startswith(f"{name}="):
            value = word.partition("=")[2].replace("%2C", ",").replace("%2c", ",")
            return value.split(",")
    return []


def _ports(words: list[str], hosts: list[str]) -> list[str]:
    _filled(hosts)
    ports = _listed(words, "port") or [""]
    if len(ports) == 1:
        return ports * len(hosts)
    if len(ports) != len(hosts):
        raise ValueError(
            f"the URL names {len(hosts)} hosts and {len(ports)} ports: one port for all, or one for each"
        )
    return ports


def _with_host(head: str, words: list[str], host: str, port: str) -> str:
    kept = [word for word in words if not word.startswith(("host=", "port="))]
    kept.append(f"host={host}")
    if port:
        kept.append(f"port={port}")
    return f"{head}?{'&'.join(kept)}"
