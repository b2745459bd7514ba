"""What the clients of the soak do, and what they must find. No driver is known here.

Whatever is named by a client has its number in it or is checked to be its own, so that a client that is
given another's state or answer notices. Locks are taken in one order, and whoever keeps a session does
only what needs no other client, so that ten sessions are enough for all of them.
"""

import time
from typing import Any

from integration.soaking.asked import (
    Act,
    Anew,
    Ask,
    Batch,
    Cancel,
    CopyIn,
    CopyOut,
    Do,
    Forget,
    Hear,
    Pause,
    Refused,
    Slowly,
    Wrong,
    expect,
    fails,
)
from integration.soaking.client import Client

TEXTS = 60  # as many statements that differ, against a stmt_cache of 20
ZONES = ("Asia/Tokyo", "Europe/Berlin", "America/Lima", "Pacific/Auckland")
SETTINGS = ("application_name", "search_path", "statement_timeout", "TimeZone")
LOOK = "SELECT " + ", ".join(f"current_setting('{name}')" for name in SETTINGS)
DIVIDE = "SELECT 1 / $1::int"


def sums(me: Client) -> Act:
    for _ in range(me.dice.randrange(1, 6)):
        text, number, said = me.dice.randrange(TEXTS), me.dice.randrange(1000), me.said()
        rows = yield Ask(f"SELECT $1::int + {text} AS c{text}, $2::text AS said", (number, said))
        expect(rows, [(number + text, said)], f"sum {text}")


def errors(me: Client) -> Act:
    yield from fails(Ask(DIVIDE, (0,)), "22012")
    yield from fails(Do("SELECT nothing FROM nowhere"), "42P01")
    said = me.said()
    rows = yield Ask("SELECT $1::text", (said,))
    expect(rows, [(said,)], "after an error")


def batch(me: Client) -> Act:
    said = [me.said() for _ in range(me.dice.randrange(2, 12))]
    texts = [me.dice.randrange(TEXTS) for _ in said]
    asks = [
        Ask(f"SELECT $1::text AS b{text}, {text} + $2::int", (word, me.number))
        for text, word in zip(texts, said, strict=True)
    ]
    if me.dice.random() < 0.3:
        asks.insert(me.dice.randrange(len(asks)), Ask(DIVIDE, (0,)))
        yield from fails(Batch(tuple(asks)), "22012")
        if me.kind in ("tasks", "threads"):
            # psycopg believes that what was skipped behind the error is prepared.
            yield from come_again(me)
    else:
        rows = yield Batch(tuple(asks))
        wanted = [[(word, text + me.number)] for text, word in zip(texts, said, strict=True)]
        expect(rows, wanted, "a batch")


def transfer(me: Client) -> Act:
    one, other = sorted(me.dice.sample(range(me.plan.accounts), 2))
    amount, turn = me.dice.randrange(-50, 50), me.next_turn()
    yield Do("BEGIN")
    move = "UPDATE public.soak_accounts SET balance = balance + $1::int WHERE account = $2::int"
    yield Ask(move, (-amount, one))
    if me.dice.random() < 0.3:
        yield Do("SAVEPOINT here")
        yield Ask(move, (1000, one))
        yield from fails(Ask(DIVIDE, (0,)), "22012")
        yield Do("ROLLBACK TO SAVEPOINT here")
    yield Ask(move, (amount, other))
    insert = "INSERT INTO public.soak_transfers VALUES ($1::int, $2::int, $3::int, $4::int, $5::int)"
    yield Ask(insert, (me.number, turn, one, other, amount))
    ending = me.dice.random()
    if ending < 0.15:
        yield Do("ROLLBACK")
    elif ending < 0.3:
        yield from fails(Ask(DIVIDE, (0,)), "22012")
        yield from fails(Ask("SELECT $1::int", (1,)), "25P02")
        yield Do("COMMIT")
    else:
        me.transfers["unsure"].append(turn)
        yield Do("COMMIT")
        me.transfers["unsure"].remove(turn)
        me.transfers["sure"].append(turn)
    mine = "SELECT count(*) FROM public.soak_transfers WHERE client = $1::int AND turn = $2::int"
    rows = yield Ask(mine, (me.number, turn))
    expect(rows, [(int(ending >= 0.3),)], f"the transfer {turn}")


def balance(me: Client) -> Act:
    rows = yield Ask("SELECT sum(balance)::int, count(*)::int FROM public.soak_accounts")
    expect(rows, [(0, me.plan.accounts)], "all money")
    mine = "SELECT turn FROM public.soak_transfers WHERE client = $1::int ORDER BY turn"
    rows = yield Ask(mine, (me.number,))
    found = {turn for (turn,) in rows}
    expect(set(me.transfers["sure"]) - found, set(), "transfers that are not there")
    expect(found - set(me.transfers["sure"]) - set(me.transfers["unsure"]), set(), "transfers never made")


def shape(me: Client) -> Act:
    """The table's columns change all the time. A statement that was prepared before may be refused once,
    as it is on a connection of one's own; one that is prepared anew while nothing changes may not, but for
    once where another client had it described before the latest change (docs/prepared-statements.md).
    """
    select, version = "SELECT * FROM public.soak_shape", "SELECT version FROM public.soak_version"
    seen: list[Any] = []
    for _ in range(5):
        try:
            rows = yield Ask(select, named=True)
        except Refused as refusal:
            if refusal.sqlstate != "0A000":
                raise
            now = yield Ask(version)
            if seen.count(now) > 1:
                raise Wrong(f"prepared anew, and the shape is still {now}, but {refusal}") from refusal
            seen.append(now)
            yield Forget()
            continue
        for name, value in rows[0].items():
            number = name[1:]
            expect(value, int(number) if name[0] == "i" else f"is {number}", f"column {name}")
        expect(len(rows[0]), 3, "columns")
        return
    raise Wrong("refused five times in a row")


def settings(me: Client) -> Act:
    yield from _look(me)
    name = me.dice.choice(SETTINGS)
    value = _some_value(me, name)
    way = me.dice.choice(("SET", "SET", "set_config", "local", "undone", "committed", "reset", "reset all"))
    if way == "local":
        yield Do("BEGIN")
        yield Do(f"SET LOCAL {name} = {_quoted(name, value)}")
        rows = yield Ask(f"SELECT current_setting('{name}')")
        expect(rows, [(value,)], f"{name} in a transaction")
        yield Do(me.dice.choice(("COMMIT", "ROLLBACK")))
    elif way == "undone":
        yield Do("BEGIN")
        yield Do(f"SET {name} = {_quoted(name, value)}")
        yield Do("ROLLBACK")
    elif way == "reset all":
        yield from _may_become(me, Do("RESET ALL"), {name: _initial(me, name) for name in SETTINGS})
    elif way == "reset":
        yield from _may_become(me, Do(f"RESET {name}"), {name: _initial(me, name)})
    elif way == "set_config":
        asked = Ask("SELECT set_config($1, $2, false)", (name, value))
        yield from _may_become(me, asked, {name: value})
    elif way == "committed":
        yield Do("BEGIN")
        yield Do(f"SET {name} = {_quoted(name, value)}")
        yield from _may_become(me, Do("COMMIT"), {name: value})
    else:
        yield from _may_become(me, Do(f"SET {name} = {_quoted(name, value)}"), {name: value})
    yield from _look(me)
    if way != "local":
        yield Pause(me.dice.random() * 0.05)
        yield from _look(me)


def _initial(me: Client, name: str) -> str:
    return me.name if name == "application_name" else me.plan.defaults[name]


def _some_value(me: Client, name: str) -> str:
    if name == "application_name":
        return f"{me.name}, {me.next_turn()}"
    if name == "search_path":
        return f"soak_{me.dice.randrange(me.plan.schemas)}, public"
    if name == "statement_timeout":
        return f"{600_001 + me.number}ms"
    return me.dice.choice(ZONES)


def _quoted(name: str, value: str) -> str:
    return value if name == "search_path" else f"'{value}'"


def _may_become(me: Client, request: Do | Ask, values: dict[str, str]) -> Act:
    """Where the answer is lost, either value may be found."""
    for name, value in values.items():
        me.settings[name] = me.settings[name] | {value}
    yield request
    for name, value in values.items():
        me.settings[name] = {value}


def _look(me: Client) -> Act:
    rows = yield Ask(LOOK)
    for name, found in zip(SETTINGS, rows[0], strict=True):
        if found not in me.settings[name]:
            raise Wrong(f"{name} is {found!r} instead of {me.settings[name]}")
        me.settings[name] = {found}
    if me.dice.random() < 0.5 and rows[0][1].startswith("soak_"):
        # One text for all, but not one meaning: a plan goes by the search_path of its session.
        found = yield Ask("SELECT number FROM soak_where")
        expect(found, [(int(rows[0][1][5]),)], rows[0][1])


def short_of_time(me: Client) -> Act:
    yield Do("BEGIN")
    yield Do("SET LOCAL statement_timeout = '20ms'")
    yield from fails(Ask("SELECT pg_sleep($1::int)", (30,)), "57014")
    yield Do("ROLLBACK")
    yield from _look(me)


def cancelled(me: Client) -> Act:
    said = me.said()
    was_cancelled = yield Cancel("SELECT pg_sleep(20)", me.dice.random() * 0.3)
    expect(was_cancelled, True, "cancelled")
    # Nothing is left of the cancel for the next one.
    rows = yield Ask("SELECT $1::text", (said,))
    expect(rows, [(said,)], "after a cancel")


def copy(me: Client) -> Act:
    turn, is_cut = me.next_turn(), me.dice.random() < 0.3
    rows = [(me.number, turn, number, f"{me.number} {number} " * 20) for number in range(300)]
    yield CopyIn("public.soak_rows", rows, is_cut)
    mine = f"FROM public.soak_rows WHERE client = {me.number} AND turn = {turn}"
    if is_cut:
        found = yield Ask(f"SELECT count(*)::int {mine}")
        expect(found, [(0,)], "rows of half a COPY")
        return
    text = yield CopyOut(f"SELECT * {mine} ORDER BY number", me.dice.random() < 0.3)
    wanted = "".join("\t".join(map(str, row)) + "\n" for row in rows)
    expect(text, wanted[: len(text)], "copied out")
    yield Do(f"DELETE {mine}")


def large(me: Client) -> Act:
    count = me.dice.randrange(200, 3000)
    rows = yield Slowly(f"SELECT {me.number} + n, repeat('x', 500) FROM generate_series(1, {count}) n")
    expect(len(rows), count, "rows of a large result")
    for number, row in enumerate(rows, 1):
        expect(row, (me.number + number, "x" * 500), "a row of a large result")


def news(me: Client) -> Act:
    """Those who listen (ears.py) must hear each that is committed, once; none that is rolled back."""
    channel, turn = me.dice.randrange(me.plan.channels), me.next_turn()
    send = Ask("SELECT pg_notify($1, $2)", (f"soak_{channel}", f"{me.number}:{turn}"))
    way = me.dice.random()
    if way < 0.2:
        yield Do("BEGIN")
        yield send
        yield Do("ROLLBACK")
        return
    sent = [channel, turn]
    me.news["unsure"].append(sent)
    if way < 0.5:
        yield Do("BEGIN")
        yield send
        yield Do("COMMIT")
    else:
        yield send
    me.news["unsure"].remove(sent)
    me.news["sure"].append(sent)


def listen(me: Client) -> Act:
    payloads = tuple(str(me.next_turn()) for _ in range(3))
    me.listens = True
    found = yield Hear(f"soak_of_{me.number}", payloads)
    me.listens, me.unlistened = False, time.monotonic()
    # A hearing that a kill broke off may have begun: who kept its connection hears now what it sent then.
    fresh = [one for one in found if int(one) >= int(payloads[0])]
    expect(fresh, list(payloads), "heard")


def temporary(me: Client) -> Act:
    yield Do(f"CREATE TEMP TABLE mine AS SELECT {me.number} AS number")
    for _ in range(2):
        rows = yield Ask("SELECT number FROM mine")
        expect(rows, [(me.number,)], "its own temporary table")
        yield Pause(me.dice.random() * 0.02)
    yield Do("DROP TABLE mine")


def lock(me: Client) -> Act:
    yield Ask("SELECT pg_advisory_lock($1::bigint)", (me.number,))
    yield Pause(me.dice.random() * 0.02)
    rows = yield Ask("SELECT pg_advisory_unlock($1::bigint)::text", (me.number,))
    expect(rows, [("true",)], "its own advisory lock")


def prepare(me: Client) -> Act:
    yield Do(f"PREPARE mine AS SELECT {me.number}")
    rows = yield Ask("EXECUTE mine")
    expect(rows, [(me.number,)], "its own prepared statement")
    yield Do("DEALLOCATE mine")


def hold(me: Client) -> Act:
    yield Do(f"DECLARE mine CURSOR WITH HOLD FOR SELECT {me.number} + n FROM generate_series(1, 9) n")
    for number in range(1, 4):
        rows = yield Ask("FETCH 1 FROM mine")
        expect(rows, [(me.number + number,)], "its own cursor")
    yield Do("CLOSE mine")


def discard(me: Client) -> Act:
    # It ends the statements that a driver has prepared, too: asyncpg would not know that.
    if me.kind == "asyncpg":
        return
    # psycopg looks at what comes of a text only when that is new to it.
    text = "DISCARD ALL" + " " * me.next_turn()
    yield from _may_become(me, Do(text), {name: _initial(me, name) for name in SETTINGS})
    yield from _look(me)


def come_again(me: Client) -> Act:
    yield Anew(is_polite=me.dice.random() < 0.7)
    me.begin_anew()
    yield from _look(me)


# How often each is chosen.
ACTS = {
    sums: 20,
    errors: 4,
    batch: 10,
    transfer: 16,
    balance: 4,
    shape: 10,
    settings: 20,
    short_of_time: 2,
    cancelled: 4,
    copy: 6,
    large: 4,
    news: 10,
    listen: 2,
    temporary: 2,
    lock: 2,
    prepare: 1,
    hold: 1,
    discard: 1,
    come_again: 4,
}
