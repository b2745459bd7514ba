"""``[pools.<name>.endpoints.<name>]`` and ``[pools.<name>.route]``: several servers behind one pool.

Says which shard key belongs to which endpoint, and finds every contradiction in that; routes nothing itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import SecretStr, field_validator

from proxy.pool.routes import whole_number
from proxy.settings.dsn import parse_dsn
from proxy.settings.knobs import Kind, Listing, Table, knob
from proxy.settings.mistakes import Mistake, nearest


def _read_key(value: Any) -> str:
    # In TOML a key may be a number: keys = [1, 2].
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError('expected a shard key: text in quotes, for example "eu", or a whole number')
    return value


ShardKey = Annotated[str, Kind(_read_key, str, "text or whole number", ("string", "integer"))]


def protocol_of(url: str) -> str:
    """Return what the server of a backend's URL speaks: "postgres", or "tcp" for bytes of any kind."""
    return "postgres" if url.strip().startswith(("postgres://", "postgresql://")) else "tcp"


class EndpointSettings(Table):
    """One of several servers of a pool; its name is what logs and metrics call it."""

    backend: SecretStr = knob(
        ...,
        "The server, as `backend` of the pool. Without a route every endpoint has the same user and the "
        "same database.",
        examples=["postgresql://app@db-eu.internal:5432/app"],
    )
    keys: Annotated[tuple[ShardKey, ...], Listing] = knob(
        (),
        "With the rule `list`: the shard keys that belong here.",
        examples=[["eu", "de"]],
        ancestors="Oracle: the keys of a shard",
    )
    start: ShardKey | None = knob(
        None,
        "With the rule `range`: the first shard key that belongs here. Without it, every key below `to` "
        "does.",
        alias="from",
        examples=["0"],
    )
    end: ShardKey | None = knob(
        None,
        "With the rule `range`: the first shard key that no longer does. Without it, every key from `from` "
        "does.",
        alias="to",
        examples=["1000"],
    )

    @field_validator("backend")
    @classmethod
    def _is_a_url(cls, backend: SecretStr) -> SecretStr:
        parse_dsn(backend.get_secret_value())
        return backend


class RouteSettings(Table):
    """Which endpoint a client's shard key leads to."""

    rule: Literal["list", "range", "hash"] = knob(
        ...,
        "`list`: the endpoint that names the key; `range`: the one in whose range it is, compared as "
        "integers if the bounds are integers, else as text by code point; `hash`: the one whose number (in "
        "the order of the file, from 0) is the CRC-32 of the key's UTF-8 modulo the number of endpoints.",
        examples=["list"],
        ancestors="Oracle `shardingkey` and `supershardingkey`",
    )
    default: str | None = knob(
        None,
        'The endpoint of clients without a shard key; `""` means any. Without this they are refused.',
        examples=["eu"],
    )


@dataclass(frozen=True)
class Route:
    """Which endpoint a shard key leads to, in the order of the configuration.

    ``rule`` is "list", "range" or "hash". ``keys`` has, for each endpoint, the keys of the list; ``ranges``
    has, for each endpoint that has one, its name, the first key and the first key above it (None: open).
    ``integers``: the bounds are compared as integers, and a key that is none leads nowhere. ``default`` is
    where a client without a key goes: the name of an endpoint, "" for any, None for nowhere.
    """

    rule: str
    endpoints: tuple[str, ...]
    keys: tuple[tuple[str, tuple[str, ...]], ...] = ()
    ranges: tuple[tuple[str, str | None, str | None], ...] = ()
    integers: bool = False
    default: str | None = None


def make_route(endpoints: dict[str, EndpointSettings], route: RouteSettings) -> Route:
    """Return the rule that these tables amount to."""
    return Route(
        rule=route.rule,
        endpoints=tuple(endpoints),
        keys=tuple((name, entry.keys) for name, entry in endpoints.items() if entry.keys),
        ranges=tuple((name, entry.start, entry.end) for name, entry in endpoints.items() if _is_bound(entry)),
        integers=route.rule == "range" and _compares_integers(endpoints),
        default=route.default,
    )


def route_mistakes(endpoints: dict[str, EndpointSettings], route: RouteSettings | None) -> Iterator[Mistake]:
    """Yield what is wrong between the endpoints and their route; paths begin below the pool."""
    for name in endpoints:
        if not name or not name.isprintable() or len(name.encode()) > 63:
            yield ("endpoints", name), "a name has 1 to 63 bytes, all of them printable"
    yield from _strangers(endpoints, route)
    if route is None:
        return
    if not endpoints:
        yield ("route",), "there is nothing to choose from: give endpoints in place of backend"
    elif route.default and route.default not in endpoints:
        close = nearest(route.default, endpoints)
        hint = f"did you mean {close}?" if close else f"the endpoints are: {', '.join(endpoints)}"
        yield ("route", "default"), f"names an endpoint that does not exist; {hint}"
    if route.rule == "list":
        yield from _in_two_lists(endpoints)
    elif route.rule == "range":
        yield from _overlaps(endpoints)


def _is_bound(entry: EndpointSettings) -> bool:
    return entry.start is not None or entry.end is not None


def _strangers(endpoints: dict[str, EndpointSettings], route: RouteSettings | None) -> Iterator[Mistake]:
    """Keys and ranges that the rule has no use for, and endpoints that nobody would ever reach."""
    rule = route.rule if route is not None else ""
    for name, entry in endpoints.items():
        for key, given, wanted in (
            ("keys", bool(entry.keys), "list"),
            ("from", entry.start is not None, "range"),
            ("to", entry.end is not None, "range"),
        ):
            if given and rule != wanted:
                instead = f'route.rule is "{rule}"' if rule else "there is no route"
                yield ("endpoints", name, key), f'{instead}, and {key} needs route.rule = "{wanted}"'
        reached = {"list": bool(entry.keys), "range": _is_bound(entry)}.get(rule, True)
        if not reached and route is not None and route.default not in ("", name):
            needed = "keys" if rule == "list" else "from or to"
            yield (
                ("endpoints", name),
                f"no shard key leads here: give {needed}, or make it the default of the route",
            )


def _in_two_lists(endpoints: dict[str, EndpointSettings]) -> Iterator[Mistake]:
    owner: dict[str, str] = {}
    for name, entry in endpoints.items():
        for key in entry.keys:
            other = owner.setdefault(key, name)
            if other != name:
                yield ("endpoints", name, "keys"), f"one of them belongs to endpoints.{other} already"


def _compares_integers(endpoints: dict[str, EndpointSettings]) -> bool:
    return all(whole_number(bound) is not None for _, _, bound in _bounds(endpoints))


def _bounds(endpoints: dict[str, EndpointSettings]) -> list[tuple[str, str, str]]:
    return [
        (name, key, bound)
        for name, entry in endpoints.items()
        for key, bound in (("from", entry.start), ("to", entry.end))
        if bound is not None
    ]


def _overlaps(endpoints: dict[str, EndpointSettings]) -> Iterator[Mistake]:
    integers = _compares_integers(endpoints)
    for name, key, bound in _bounds(endpoints):
        if not integers and whole_number(bound) is not None:
            # 9 comes before 10, and "10" before "9": nobody could say which was meant.
            yield ("endpoints", name, key), "is an integer, and other bounds are not: write all as one kind"
            return

    def place(bound: str | None) -> Any:
        return whole_number(bound) if integers and bound is not None else bound

    ranges = []
    for name, entry in endpoints.items():
        first, behind = place(entry.start), place(entry.end)
        if first is not None and behind is not None and first >= behind:
            how = "integers" if integers else "text"
            yield ("endpoints", name, "to"), f"is not above from (the bounds are compared as {how})"
        elif _is_bound(entry):
            ranges.append((first is not None, first, name, behind))
    # An open beginning sorts before every other; two of them are compared no further than by name.
    ranges.sort(key=lambda entry: (entry[0], entry[1], entry[2]) if entry[0] else (False,))
    for (_, _, before, end), (begins, first, name, _) in pairwise(ranges):
        if end is None or not begins or first < end:
            yield ("endpoints", name), f"its range overlaps that of endpoints.{before}"
