"""Plays the parts around a PostgreSQL codec, without any I/O: the relay, a pool, a server.

Messages are framed by small functions (``query("SELECT 1")``, ``sync()``). ``Scene`` is one client with
its codec, driven as the relay drives it, against a server whose lines the test speaks. ``ModelServer``
answers as PostgreSQL's message loop does, for statements of a small language: the oracle of the property
tests.

The model's statements: SELECT word, BEGIN, START TRANSACTION, COMMIT, END, ROLLBACK, ABORT (the last four
with AND CHAIN), SAVEPOINT name, ROLLBACK TO name, VACUUM, FAIL, WRITE word, SET name = value,
SHOW name, RESET name|ALL, DISCARD ALL, DEALLOCATE name|ALL, LISTEN, PREPARE, EXECUTE, COPY IN [n] (which
fails at the n-th row), COPY IN EARLY (which fails before it reads), COPY OUT, NOTICE; "" is the empty
statement.
"""

import struct
from collections.abc import Callable, Generator
from typing import Any

from proxy.codec import CLOSE, FORWARD, PREPARE, RECOVER, RELEASE, REPLY, RESUME, TERMS
from proxy.errors import PoolBusy
from proxy.postgres.begin import PASS_ON
from proxy.postgres.messages import error, message, parameter_status, ready
from proxy.postgres.profile import Profiles
from proxy.postgres.relaying import PgClientCodec
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.session_login import Opened
from proxy.postgres.state import POOL_MODES
from proxy.postgres.statements import Statements
from proxy.postgres.terms import Terms

CAP = 1 << 30
DEFAULTS = {"application_name": "", "TimeZone": "UTC"}
PARSED = message(b"1", b"")
BOUND = message(b"2", b"")
CLOSED = message(b"3", b"")
NO_DATA = message(b"n", b"")
NO_PARAMETERS = message(b"t", b"\0\0")
EMPTY = message(b"I", b"")
COPY_IN = message(b"G", b"\0\0\0")
COPY_OUT = message(b"H", b"\0\0\0")


def parse(text: str, name: str = "") -> bytes:
    return message(b"P", name.encode() + b"\0" + text.encode() + b"\0\0\0")


def bind(name: str = "", portal: str = "") -> bytes:
    return message(b"B", portal.encode() + b"\0" + name.encode() + b"\0" + b"\0" * 6)


def describe(name: str = "", kind: str = "S") -> bytes:
    return message(b"D", kind.encode() + name.encode() + b"\0")


def close(name: str = "", kind: str = "S") -> bytes:
    return message(b"C", kind.encode() + name.encode() + b"\0")


def execute(portal: str = "") -> bytes:
    return message(b"E", portal.encode() + b"\0" * 5)


def sync() -> bytes:
    return message(b"S", b"")


def flush() -> bytes:
    return message(b"H", b"")


def call() -> bytes:
    return message(b"F", b"\0" * 10)


def copy_data(data: bytes = b"row\n") -> bytes:
    return message(b"d", data)


def copy_done() -> bytes:
    return message(b"c", b"")


def copy_fail() -> bytes:
    return message(b"f", b"no\0")


def terminate() -> bytes:
    return message(b"X", b"")


def unnamed(text: str) -> bytes:
    """A whole unit by the extended protocol."""
    return parse(text) + bind() + execute() + sync()


def done(tag: str) -> bytes:
    return message(b"C", tag.encode() + b"\0")


def row(text: str) -> bytes:
    return message(b"D", b"\0\x01" + struct.pack("!i", len(text)) + text.encode())


def columns() -> bytes:
    return message(b"T", b"\0\x01x\0" + b"\0" * 18)


def selected(text: str, status: str = "I") -> bytes:
    """What the server says to a simple query ``SELECT text``."""
    return columns() + row(text) + done("SELECT 1") + ready(ord(status))


def failed(sqlstate: str = "42601", text: str = "no") -> bytes:
    return error("ERROR", sqlstate, text)


def notice(text: str = "by the way") -> bytes:
    return message(b"N", b"SNOTICE\0M" + text.encode() + b"\0\0")


def notification() -> bytes:
    return message(b"A", b"\0\0\0\x01channel\0payload\0")


def cut(data: bytes) -> list[tuple[str, bytes]]:
    """Cut a stream into messages: (type, body); nothing may be left over."""
    found = []
    while data:
        end = 1 + struct.unpack("!i", data[1:5])[0]
        assert 5 <= end <= len(data), f"{data[:40]!r} is not a whole message"
        found.append((chr(data[0]), data[5:end]))
        data = data[end:]
    return found


def told(data: bytes) -> list[str]:
    """What a stream of the server's messages says, a word for each: "Z I", "E 42601", "D text", "1"."""
    words = []
    for kind, body in cut(data):
        if kind == "Z":
            words.append("Z " + body.decode())
        elif kind == "E":
            fields = {part[:1]: part[1:].decode() for part in body.split(b"\0") if part}
            words.append("E " + fields[b"C"])
        elif kind == "D":
            words.append("D " + body[6:].decode())
        elif kind == "C":
            words.append("C " + body[:-1].decode())
        elif kind == "S":
            words.append("S " + body[:-1].replace(b"\0", b"=").decode())
        else:
            words.append(kind)
    return words


def permit(name: str, text: str) -> str:
    if name == "penstock.getmode" and text not in ("nowait", "timedwait"):
        raise ValueError("choose nowait or timedwait")
    if name == "penstock.wait_timeout":
        milliseconds(text)
    return text


def milliseconds(text: str) -> float:
    if not text.endswith("ms"):
        raise ValueError("say it in ms")
    return int(text[:-2]) / 1000


SHOWN = {
    "penstock.getmode": "timedwait",
    "penstock.wait_timeout": "30s",
    "penstock.cclass": "",
    "penstock.purity": "self",
}
TERMS_OF_POOL = Terms("app", SHOWN, permit, milliseconds)
ENDS = ("COMMIT", "END", "ROLLBACK", "ABORT")


def new_session(profiles: Profiles, defaults: dict[str, str] | None = None) -> PgSessionCodec:
    def login() -> Generator[Any, Any, Opened]:
        yield b""
        return Opened(dict(defaults or DEFAULTS), 4711, b"abcd", False, "trust", b"")

    session = PgSessionCodec(profiles, login)
    conversation = session.log_in()
    next(conversation)
    try:
        conversation.send(b"x")
    except StopIteration:
        return session
    raise AssertionError("the login went on")


def new_codec(
    profiles: Profiles,
    mode: str = "transaction",
    number: int = 1,
    cap: int = CAP,
    begin: int = PASS_ON,
    statements: Statements | None = None,
    **startup: str,
) -> PgClientCodec:
    terms = Terms("app", SHOWN, permit, milliseconds, begin)
    profile = profiles.of(startup)
    return PgClientCodec(number, POOL_MODES.index(mode), terms, profiles, profile, cap, statements)


def converse(conversation: Any, answer: Callable[[bytes], bytes]) -> Any:
    """Drive a conversation: ``answer`` is given what it sends and returns what comes back."""
    back = None
    for _ in range(100_000):
        try:
            sent = conversation.send(back)
        except StopIteration as end:
            return end.value
        back = answer(sent)
        assert back, f"the conversation waits for ever behind {sent!r}"
    raise AssertionError("the conversation never ends")


class Scene:
    """One client and its codec; sessions are there for the asking unless ``full``. The test is the server."""

    def __init__(
        self,
        mode: str = "transaction",
        full: bool = False,
        cap: int = CAP,
        begin: int = PASS_ON,
        **startup: str,
    ) -> None:
        self.profiles = Profiles()
        self.codec = new_codec(self.profiles, mode, 7, cap, begin, **startup)
        self.mode = mode
        self.full = full
        self.session = new_session(self.profiles)  # the one that is had next
        self.is_linked = False
        self.is_waiting = False
        self.is_closed = False
        self.releases = 0
        self.recovered: list[bool] = []  # for each recovery: whether there was a way
        self.prepared = 0
        self.settings_changed = 0
        self._late = b""
        self._server = b""
        self._client = b""
        self.flags = 0

    # What is said.

    def client(self, *messages: bytes) -> "Scene":
        """The client says this, in one piece."""
        data = b"".join(messages)
        if self.is_waiting:
            self._late += data
        else:
            self.flags = self.codec.client(data)
            self._act(self.flags)
        return self

    def server(self, *messages: bytes) -> "Scene":
        """The linked session says this, in one piece."""
        assert self.is_linked, "nobody holds the session that speaks"
        flags = self.flags = self.codec.server(b"".join(messages))
        if flags & FORWARD:
            self._client += self.codec.out
        assert not flags & CLOSE
        if flags & RELEASE:
            self._release()
        if flags & RECOVER:
            self._give_back()
        if flags & PREPARE:
            self.prepared += 1
        if flags & RESUME:
            self.client(b"")
        return self

    def grant(self) -> "Scene":
        """The waiting client gets its session."""
        assert self.is_waiting
        self.is_waiting = False
        self._link()
        self._go_on()
        return self

    def refuse(self) -> "Scene":
        """The waiting client is told that there is no session."""
        assert self.is_waiting
        self.is_waiting = False
        self._client += self.codec.refuse(PoolBusy("every slot is taken", "the picture"))
        self._go_on()
        return self

    def lose_session(self) -> bytes | None:
        """The held session dies."""
        answer = self.codec.session_lost()
        self.codec.part()
        self.is_linked = False
        if answer is not None:
            self._client += answer
            self.client(b"")
        return answer

    def vanish(self) -> None:
        """The client is gone."""
        self.is_closed = True
        if self.is_linked:
            self._give_back()

    # What came of it.

    def server_got(self) -> bytes:
        """What was forwarded since the last time this was asked."""
        got, self._server = self._server, b""
        return got

    def client_got(self) -> bytes:
        """What the client was sent since the last time this was asked."""
        got, self._client = self._client, b""
        return got

    def client_told(self) -> list[str]:
        """The same, in words."""
        return told(self.client_got())

    # As the relay does.

    def _act(self, flags: int) -> None:
        if flags & TERMS:
            self.settings_changed += 1
        if flags & REPLY:
            self._client += self.codec.reply
        if flags & FORWARD:
            assert self.codec.out or self.codec.more
            if self.is_linked:
                self._server += self.codec.out
            elif self.full:
                self.is_waiting = True
            else:
                self._link()
        if flags & CLOSE:
            self.is_closed = True
            if self.is_linked:
                self._give_back()
        elif flags & RELEASE:
            self._release()

    def _link(self) -> None:
        self.is_linked = True
        if self.codec.join(self.session):
            self.prepared += 1
            self._client += converse(self.codec.prepare(), ModelServer().feed)
        self._server += self.codec.out
        if self.codec.more:
            self.client(b"")

    def _go_on(self) -> None:
        late, self._late = self._late, b""
        self.client(late)

    def _release(self) -> None:
        assert self.codec.is_clean()
        self.codec.part()
        self.is_linked = False
        if not self.session.last_words():
            self.releases += 1

    def _give_back(self) -> None:
        if self.codec.is_clean():
            self._release()
            return
        self.recovery = self.codec.recovery()
        self.recovered.append(self.recovery is not None)
        self.codec.part()
        self.is_linked = False


class Failed(Exception):
    """A statement of the model has failed."""

    def __init__(self, sqlstate: str, about: str = "") -> None:
        super().__init__(f"no {about}")
        self.sqlstate = sqlstate


class ModelServer:
    """One backend of PostgreSQL, from the ReadyForQuery of its login on.

    ``proxied`` makes it answer as Penstock in transaction mode does: its settings are answered.
    """

    def __init__(self, proxied: bool = False) -> None:
        self.proxied = proxied
        self.status = "I"
        self.defaults = dict(DEFAULTS)
        self.settings = dict(DEFAULTS)
        self.reported = dict(DEFAULTS)
        self.own = {"penstock.getmode": "timedwait", "penstock.wait_timeout": "30s"}
        self.statements: dict[str, str] = {}
        self.portals: dict[str, str] = {}
        self.written: list[str] = []
        self.committed: list[str] = []
        self.executed: list[str] = []
        self.skipping = False
        self.in_segment = False
        self.in_copy = False
        self.is_dead = False
        self.is_standby = False  # refuses a transaction that may write
        self.savepoints: list[str] = []
        self._saved: dict[str, str] | None = None
        self._out = b""
        self._data = b""
        self._loop = self._serve()
        next(self._loop)

    def feed(self, data: bytes) -> bytes:
        """Read bytes; what the server says to them."""
        self._data += data
        while len(self._data) >= 5 and not self.is_dead:
            end = 1 + struct.unpack("!i", self._data[1:5])[0]
            if end > len(self._data):
                break
            found = chr(self._data[0]), self._data[5:end]
            self._data = self._data[end:]
            self._loop.send(found)
        out, self._out = self._out, b""
        return out

    def is_resting(self) -> bool:
        """Nothing is open and nothing is half said."""
        return self.status == "I" and not (
            self.in_segment or self.in_copy or self.skipping or self._data or self.is_dead
        )

    def _say(self, *messages: bytes) -> None:
        self._out += b"".join(messages)

    def _serve(self) -> Generator[None, tuple[str, bytes], None]:
        while True:
            kind, body = yield
            if kind == "X":
                self.is_dead = True
            elif self.skipping and kind != "S":
                continue
            elif kind == "Q":
                self.in_segment = False
                yield from self._query(body[:-1].decode())
            elif kind == "S":
                self.skipping = self.in_segment = False
                self._ready()
            elif kind == "F":
                self.in_segment = False
                self._say(message(b"V", b"\xff\xff\xff\xff"))
                self._ready()
            elif kind in "PBDEC":
                self.in_segment = True
                try:
                    yield from self._extended(kind, body)
                except Failed as error:
                    self._fail(error)
                    self.skipping = True
            elif kind not in "dcfH":
                self._die()

    def _die(self) -> None:
        self._say(failed("08P01"), error("FATAL", "08P01", "protocol synchronization was lost"))
        self.is_dead = True

    def _fail(self, error: Failed) -> None:
        self._say(failed(error.sqlstate, str(error)))
        self.written.clear()
        if self.status == "T":
            self.status = "E"
        self._restore()

    def _restore(self) -> None:
        if self.status != "E" and self._saved is not None:
            self.settings, self._saved = self._saved, None

    def _ready(self) -> None:
        if self.status == "I":
            self.committed += self.written
            self.written.clear()
            self._saved = None
        for name, value in self.settings.items():
            if self.reported[name] != value:
                self.reported[name] = value
                self._say(parameter_status(name, value))
        self._say(ready(ord(self.status)))

    def _query(self, text: str) -> Generator[None, tuple[str, bytes], None]:
        self.statements.pop("", None)
        statements = [part.strip() for part in text.split(";")]
        while len(statements) > 1 and not statements[-1]:
            statements.pop()
        try:
            for statement in statements:
                if statement.startswith(("SELECT", "SHOW")) and self.status != "E":
                    self._say(columns())
                yield from self._run(statement, False)
        except Failed as error:
            self._fail(error)
        if not self.is_dead:
            self._ready()

    def _extended(self, kind: str, body: bytes) -> Generator[None, tuple[str, bytes], None]:
        name, _, rest = body.partition(b"\0")
        if kind == "P":
            self._parse(name.decode(), rest.partition(b"\0")[0].decode().rstrip(";"))
        elif kind == "B":
            statement = rest.partition(b"\0")[0].decode()
            if statement not in self.statements:
                raise Failed("26000", statement)
            self._check(self.statements[statement])
            self.portals[name.decode()] = _bound(self.statements[statement], rest)
            self._say(BOUND)
        elif kind == "D":
            held = self.statements if body[:1] == b"S" else self.portals
            text = held.get(name[1:].decode())
            if text is None:
                raise Failed("26000" if body[:1] == b"S" else "34000")
            if text.startswith(("SELECT", "SHOW")):
                self._check(text)
            self._say(NO_PARAMETERS if body[:1] == b"S" else b"")
            self._say(columns() if text.startswith(("SELECT", "SHOW")) else NO_DATA)
        elif kind == "C":
            held = self.statements if body[:1] == b"S" else self.portals
            held.pop(name[1:].decode(), None)
            self._say(CLOSED)
        else:
            if name.decode() not in self.portals:
                raise Failed("34000")
            yield from self._run(self.portals[name.decode()], True)

    def _parse(self, name: str, text: str) -> None:
        if not name:
            self.statements.pop("", None)
        if text.startswith("WRONG"):
            raise Failed("42601")
        self._check(text)
        if name and name in self.statements:
            raise Failed("42P05")
        self.statements[name] = text
        self._say(PARSED)

    def _check(self, text: str) -> None:
        if self.status == "E" and text and text.split(" ")[0] not in ENDS:
            raise Failed("25P02")

    def _run(self, text: str, extended: bool) -> Generator[None, tuple[str, bytes], None]:
        if not text:
            self._say(EMPTY)
            return
        self._check(text)
        self.executed.append(text)
        verb, _, rest = text.partition(" ")
        if text.startswith("COPY IN"):
            yield from self._copy_in(rest[3:])
            return
        do = getattr(self, "_do_" + verb.lower(), None)
        if do is None:
            raise Failed("26000" if verb == "EXECUTE" else "42601", rest)
        self._say(do(rest))

    def _copy_in(self, rest: str) -> Generator[None, tuple[str, bytes], None]:
        self._say(COPY_IN)
        if rest == "EARLY":
            raise Failed("P0001")
        self.in_copy = True
        rows = 0
        try:
            while True:
                kind, _ = yield
                if kind == "d":
                    rows += 1
                    if str(rows) == rest:
                        raise Failed("22P04")
                elif kind == "c":
                    break
                elif kind == "f":
                    raise Failed("57014")
                elif kind not in "HS":
                    self._die()
                    return
        finally:
            self.in_copy = False
        self._say(done(f"COPY {rows}"))

    # One method for each verb: what is said when it has succeeded.

    def _do_select(self, rest: str) -> bytes:
        return row(rest) + done("SELECT 1")

    def _do_write(self, rest: str) -> bytes:
        self.written.append(rest)
        return done("INSERT 0 1")

    def _do_notice(self, rest: str) -> bytes:
        return notice() + done("DO")

    def _do_copy(self, rest: str) -> bytes:
        return COPY_OUT + copy_data() + copy_data() + copy_done() + done("COPY 2")

    def _do_listen(self, rest: str) -> bytes:
        return done("LISTEN")

    def _do_prepare(self, rest: str) -> bytes:
        self.statements[rest.split(" ")[0]] = "SELECT prepared"
        return done("PREPARE")

    def _do_begin(self, rest: str, tag: str = "BEGIN") -> bytes:
        if "READ WRITE" in rest and self.is_standby:
            raise Failed("25006")
        if self.status == "T":
            return notice("there is already a transaction in progress") + done(tag)
        self.status = "T"
        self.savepoints.clear()
        self._saved = dict(self.settings)
        return done(tag)

    def _do_start(self, rest: str) -> bytes:
        return self._do_begin(rest, "START TRANSACTION")

    def _do_commit(self, rest: str) -> bytes:
        if self.status == "E":
            return self._do_rollback(rest)
        if self.status == "I" and rest == "AND CHAIN":
            raise Failed("25P01")
        warned = notice("there is no transaction in progress") if self.status == "I" else b""
        self.committed += self.written
        self.written.clear()
        self._saved = None
        return warned + self._ended("COMMIT", rest)

    def _do_rollback(self, rest: str) -> bytes:
        if rest.startswith("TO "):
            if rest[3:] not in self.savepoints:
                raise Failed("25P01" if self.status == "I" else "3B001")
            self.status = "T"
            return done("ROLLBACK")
        if self.status == "I" and rest == "AND CHAIN":
            raise Failed("25P01")
        warned = notice("there is no transaction in progress") if self.status == "I" else b""
        self.written.clear()
        self._restore()
        return warned + self._ended("ROLLBACK", rest)

    def _ended(self, tag: str, rest: str) -> bytes:
        self.status = "I"
        self.savepoints.clear()
        if rest == "AND CHAIN":
            self._do_begin("")
        return done(tag)

    _do_end, _do_abort = _do_commit, _do_rollback

    def _do_savepoint(self, rest: str) -> bytes:
        if self.status == "I":
            raise Failed("25P01")
        self.savepoints.append(rest)
        return done("SAVEPOINT")

    def _do_vacuum(self, rest: str) -> bytes:
        if self.status == "T":
            raise Failed("25001")
        return done("VACUUM")

    def _do_set(self, rest: str) -> bytes:
        if rest.startswith("SESSION AUTHORIZATION"):
            return done("SET")
        name, _, value = rest.partition(" = ")
        if name in self.own and self.proxied:
            try:
                self.own[name] = permit(name, value.strip("'"))
            except ValueError:
                raise Failed("22023") from None
        else:
            self._change(name, value)
        return done("SET")

    def _change(self, name: str, value: str) -> None:
        found = [known for known in self.settings if known.lower() == name.lower()]
        if not found:
            raise Failed("42704")
        if self._saved is None:
            self._saved = dict(self.settings)
        self.settings[found[0]] = value

    def _do_config(self, rest: str) -> bytes:
        name, _, value = rest.partition(" = ")
        self._change(name, self._default(name) if value == "NULL" else value)
        return row(value) + done("SELECT 1")

    def _default(self, name: str) -> str:
        return next(value for known, value in self.defaults.items() if known.lower() == name.lower())

    def _do_show(self, rest: str) -> bytes:
        values = self.own if self.proxied and rest in self.own else self.settings
        if rest not in values:
            raise Failed("42704")
        return row(values[rest]) + done("SHOW")

    def _do_deallocate(self, rest: str) -> bytes:
        if rest == "ALL":
            self.statements = {name: text for name, text in self.statements.items() if not name}
            return done("DEALLOCATE ALL")
        if rest not in self.statements:
            raise Failed("26000")
        del self.statements[rest]
        return done("DEALLOCATE")

    def _do_reset(self, rest: str) -> bytes:
        for name in self.settings if rest == "ALL" else (rest,):
            self._change(name, self._default(name))
        return done("RESET")

    def _do_discard(self, rest: str) -> bytes:
        self._do_reset("ALL")
        self.statements = {name: text for name, text in self.statements.items() if not name}
        return done("DISCARD ALL")


def _bound(text: str, rest: bytes) -> str:
    """The statement of a Bind; set_config is the one whose arguments matter."""
    if "set_config" not in text:
        return text
    arguments, at = [], rest.index(b"\0") + 5
    for _ in range(2):
        length = struct.unpack("!i", rest[at : at + 4])[0]
        at += 4
        arguments.append("NULL" if length < 0 else rest[at : at + length].decode())
        at += max(length, 0)
    return "CONFIG " + " = ".join(arguments)
