"""Reads rules from the text of a ``pg_hba.conf``: strictly, and with what to do instead in every error.

What the format knows and this proxy does not (host names, roles and their members, other files, other
methods) is an error and never skipped: a rule that was passed over would let the next one decide.
"""

from ipaddress import ip_address, ip_network
from typing import Final

from proxy.postgres.hba import ALL_ADDRESSES, KINDS, METHODS, SAME_HOST, Network, Rule, Rules
from proxy.postgres.hba_words import Field, check, split_lines

CLIENTCERTS: Final = ("verify-ca", "verify-full")
_WORDS: Final = ", ".join
_INCLUDES: Final = ("include", "include_if_exists", "include_dir")


def read_hba(text: str) -> Rules:
    """The rules of a file. Raises WrongLines; a file without any rule is wrong in its first line."""
    lines, wrong = split_lines(text)
    rules: list[Rule] = []
    for number, fields in lines:
        try:
            rules.append(_rule(number, fields))
        except ValueError as error:
            wrong.append((number, str(error)))
    check(wrong)
    if not rules:
        check([(1, "the file has no rule, so nobody could come in: host all all all scram-sha-256")])
    return Rules(rules)


def _rule(number: int, fields: list[Field]) -> Rule:
    kind = _only(fields[0], "a kind of connection")
    if kind in _INCLUDES:
        raise ValueError("other files are not read from here: put the rules into this file")
    if kind not in KINDS:
        raise ValueError(f"the first field is one of {_WORDS(KINDS)}")
    least = 4 if kind == "local" else 5
    if len(fields) < least:
        raise ValueError(
            f"has {len(fields)} fields; expected kind, databases, users, "
            f"{'' if kind == 'local' else 'address, '}method"
        )
    for words in fields[1:3]:
        _check_names(words)
    network: Network | str | None = None
    rest = fields[3:]
    if kind != "local":
        network, used = _network(rest)
        rest = rest[used:]
    if not rest:
        raise ValueError("the method is missing")
    method = _only(rest[0], "a method")
    if method not in METHODS:
        raise ValueError(f"the method is one of {_WORDS(METHODS)}")
    map_name, clientcert = _options(kind, method, rest[1:])
    return Rule(kind, fields[1], fields[2], network, method, map_name, clientcert, number)


def _only(field: Field, what: str) -> str:
    if len(field) != 1:
        raise ValueError(f"a list stands where {what} belongs")
    return field[0].text


def _check_names(words: Field) -> None:
    for word in words:
        if word.keyword.startswith("+") or word.keyword == "samerole" or word.keyword == "samegroup":
            raise ValueError(
                "the members of a role are known to the server only: list the users, or use /a regular "
                "expression"
            )
        if word.keyword.startswith("@"):
            raise ValueError("other files are not read from here: list the names, or quote a name with @")


def _network(rest: list[Field]) -> tuple[Network | str, int]:
    """The address of a rule, and how many fields it takes. Raises ValueError."""
    text = _only(rest[0], "an address")
    if text in (ALL_ADDRESSES, SAME_HOST) and not rest[0][0].quoted:
        return text, 1
    if text == "samenet":
        raise ValueError("samenet is not known here: write the network, for example 10.0.0.0/8")
    if "/" in text:
        return _parsed(text), 1
    try:
        ip_address(text)
    except ValueError:
        raise ValueError(
            "the address is a network such as 10.0.0.0/8, an address with its mask, all or samehost; host "
            "names are not resolved"
        ) from None
    if len(rest) < 2 or rest[1][0].text in METHODS:
        raise ValueError("the address has no mask: write for example 10.1.2.3/32")
    return _parsed(f"{text}/{_only(rest[1], 'a mask')}"), 2


def _parsed(text: str) -> Network:
    address, _, mask = text.partition("/")
    try:
        if ":" in address and ":" in mask:
            # The library knows IPv6 masks by their length only.
            bits = f"{int(ip_address(mask)):0128b}"
            if "01" in bits:
                raise ValueError
            mask = str(bits.count("1"))
        if "." in mask and "01" in f"{int(ip_address(mask)):032b}":
            raise ValueError  # the library would read it upside down
        return ip_network(f"{address}/{mask}", strict=False)
    except ValueError:
        raise ValueError("the address or its mask is none: write for example 10.0.0.0/8 or ::1/128") from None


def _options(kind: str, method: str, fields: list[Field]) -> tuple[str, str]:
    """``map`` and ``clientcert``. Raises ValueError."""
    given: dict[str, str] = {}
    for field in fields:
        name, equals, value = _only(field, "an option").partition("=")
        if not equals or name not in ("map", "clientcert") or not value:
            raise ValueError("behind the method only map=... and clientcert=... are known")
        if name in given:
            raise ValueError(f"{name} is given twice")
        given[name] = value
    clientcert = given.get("clientcert", "")
    if clientcert and clientcert not in CLIENTCERTS:
        raise ValueError(f"clientcert is one of {_WORDS(CLIENTCERTS)}")
    if kind != "hostssl" and (clientcert or method == "cert"):
        raise ValueError("a certificate is shown under TLS only: the first field must be hostssl")
    if kind != "local" and method == "peer":
        raise ValueError("peer works over a Unix socket only: the first field must be local")
    if method == "cert":
        if clientcert == "verify-ca":
            raise ValueError("cert compares the certificate's name as well: leave clientcert out")
        clientcert = "verify-full"
    if "map" in given and method != "peer" and clientcert != "verify-full":
        raise ValueError("map goes with cert, peer or clientcert=verify-full")
    return given.get("map", ""), clientcert
