"""How a client proves who it is: SCRAM, MD5, a password in clear text, or trust.

Whether a user exists can be told neither from what it is asked nor from what it is answered: for a user
that does not exist a stand-in plays the same exchange to its end. Only an account that is listed, and
whose secret was shown, ever comes out of here.
"""

import hashlib
import hmac
import secrets
import struct
from collections.abc import Callable
from typing import Final, NoReturn

from proxy.errors import RemoteProtocolError
from proxy.postgres.accounts import Account, Directory
from proxy.postgres.lookup import Lookup
from proxy.postgres.messages import (
    AUTH_CLEARTEXT,
    AUTH_MD5,
    AUTH_SASL,
    AUTH_SASL_CONTINUE,
    AUTH_SASL_FINAL,
    Inbox,
    authentication,
    cstring,
)
from proxy.postgres.scram import MESSAGE_CAP, SCRAM, SCRAM_PLUS, ScramError, ScramServer
from proxy.postgres.startup import Startup, refused
from proxy.postgres.ways import VOUCHED, unknown
from proxy.reasons import RefusalReason
from proxy.reception import Refused
from proxy.steps import Conversation, Wait, Work

PASSWORD_CAP: Final = 65_536  # bytes: one message with a password; cloud tokens are that long


class Exam:
    """One proof of one frozen identity, which ``startup`` names.

    ``binding`` is our certificate's tls-server-end-point data where channel binding can be offered on
    this connection. ``received`` came behind the startup packet. ``lookup`` is asked for users that are not
    listed. ``owed`` is what goes out next, before anything else.
    """

    def __init__(
        self,
        auth: str,
        directory: Directory,
        startup: Startup,
        binding: bytes | None,
        received: bytes,
        lookup: Lookup | None = None,
    ) -> None:
        self.inbox = Inbox(rest=received)
        self.mechanism = ""
        self.owed = startup.negotiate
        self._auth = auth
        self._directory = directory
        self._startup = startup
        self._user = startup.user
        self._binding = binding
        self._lookup = lookup
        # Checks again what the client has shown, against another account; not all that it shows can be.
        self._check: Callable[[Account], Conversation[bool]] | None = None
        self._why = "the password is wrong"  # for our log only

    def prove(self) -> Conversation[Account]:
        """Have the client prove that it is who it says. Raises Refused."""
        listed = self._directory.find(self._user)
        lookup = self._lookup if listed is None or not listed.has_secret() else None
        known = listed
        if lookup is not None:
            known = (yield Wait(lambda: lookup.find(self._user))) or listed
        if self._auth in VOUCHED:
            return self._vouched(known)
        if self._auth == "trust":
            return self._trust(known)
        is_proven = yield from self._examine(known or self._stand_in(lookup))
        if not is_proven and lookup is not None:
            # Its password may have changed since it was asked for; and who was unknown may be known by now.
            known = (yield Wait(lambda: lookup.find_again(self._user))) or listed
            is_proven = known is not None and (yield from self._examine_again(known))
        if known is None:
            self._deny("it is not a known user")
        if not is_proven:
            self._deny(self._why)
        return known

    def _stand_in(self, lookup: Lookup | None) -> Account:
        # With md5 some are asked by SCRAM and some by MD5, so those that do not exist must be, too.
        shape = lookup.shape if lookup is not None and self._auth != "md5" else None
        directory = self._directory
        return directory.stand_in(self._user) if shape is None else directory.stand_in(self._user, shape)

    def _examine(self, account: Account) -> Conversation[bool]:
        if self._auth == "md5" and account.md5_hash() is not None:
            is_proven = yield from self._md5(account)
        elif self._auth == "password":
            is_proven = yield from self._cleartext(account)
        else:
            is_proven = yield from self._scram(account)
        return is_proven

    def _examine_again(self, account: Account) -> Conversation[bool]:
        """Whether what the client has shown is right for this account."""
        if self._check is None:
            self._why = "the password is wrong, or has changed on the server a moment ago"
            return False
        return (yield from self._check(account))

    def _vouched(self, known: Account | None) -> Account:
        self.mechanism = self._auth
        if known is None:
            raise unknown(self._startup, self._auth)
        return known

    def _trust(self, known: Account | None) -> Account:
        self.mechanism = "trust"
        if known is None:
            text = f'user "{self._user}" may not connect'
            hint = f"List the user in the proxy's configuration: [users.{self._user}]."
            log = f"user {self._user!r} is not a known user"
            raise refused(log, "28000", text, hint=hint, reason=RefusalReason.AUTH, before=self.owed)
        return known

    def _md5(self, account: Account) -> Conversation[bool]:
        self.mechanism = "md5"
        salt = secrets.token_bytes(4)
        answer = yield from self._password(authentication(AUTH_MD5, salt))

        def check(account: Account) -> Conversation[bool]:
            yield from ()
            inner = account.md5_hash()
            digest = hashlib.md5((inner or "").encode("ascii") + salt, usedforsecurity=False).hexdigest()
            return inner is not None and hmac.compare_digest(answer, f"md5{digest}".encode("ascii"))

        self._check = check
        return (yield from check(account))

    def _cleartext(self, account: Account) -> Conversation[bool]:
        self.mechanism = "password"
        presented = yield from self._password(authentication(AUTH_CLEARTEXT))

        def check(account: Account) -> Conversation[bool]:
            is_proven: bool = yield Work(lambda: account.accepts(presented))
            return is_proven

        self._check = check
        return (yield from check(account))

    def _scram(self, account: Account) -> Conversation[bool]:
        if not account.speaks_scram():
            # Only an MD5 hash: the exchange is played to its end, so that it looks like any other.
            account = self._directory.stand_in(self._user)
            self._why = "there is no secret of it that SCRAM could be checked against, at most an MD5 hash"
        verifier = yield from account.scram_verifier()
        exchange = ScramServer(verifier, self._binding)
        try:
            self.mechanism, first = yield from self._sasl_initial()
            challenge = exchange.first(self.mechanism, first)
            final = exchange.final(
                (yield from self._answer(authentication(AUTH_SASL_CONTINUE, challenge), MESSAGE_CAP))
            )
        except ScramError as broken:
            raise refused(
                f"login of user {self._user!r}: {broken}",
                broken.sqlstate,
                str(broken),
                reason=RefusalReason.AUTH,
            ) from None
        self.mechanism = self.mechanism.lower()
        if final is None or account.is_mock:
            return False
        if account.verifier is not None:
            account.client_key = exchange.client_key
        self.owed += authentication(AUTH_SASL_FINAL, final)
        return True

    def _sasl_initial(self) -> Conversation[tuple[str, bytes]]:
        """Offer the mechanisms; returns the one that the client chose and its first message."""
        offered = [SCRAM] if self._binding is None else [SCRAM_PLUS, SCRAM]
        names = b"".join(cstring(name) for name in offered)
        body = yield from self._answer(authentication(AUTH_SASL, names + b"\0"), MESSAGE_CAP)
        chosen, zero, rest = body.partition(b"\0")
        mechanism = chosen.decode("ascii", "replace")
        if not zero or len(rest) < 4 or mechanism not in offered:
            raise ScramError("the client chose no SASL mechanism that was offered")
        (length,) = struct.unpack("!i", rest[:4])
        first = rest[4:]
        if length == -1 and not first:  # no message yet: an empty challenge asks for it
            first = yield from self._answer(authentication(AUTH_SASL_CONTINUE), MESSAGE_CAP)
        elif length != len(first):
            raise ScramError("the length inside the SASL message is not the length of what follows")
        return mechanism, first

    def _password(self, request: bytes) -> Conversation[bytes]:
        """Ask for a password message; returns its one string."""
        body = yield from self._answer(request, PASSWORD_CAP)
        if body[-1:] != b"\0" or b"\0" in body[:-1]:
            raise self._broken("the password message is not one string")
        if len(body) == 1:
            self._deny("the password is empty")
        return body[:-1]

    def _answer(self, request: bytes, cap: int) -> Conversation[bytes]:
        """Send what is owed and a request, then wait for the only message that may follow."""
        send, self.owed = self.owed + request, b""
        if self.inbox.rest:
            raise self._broken("data came ahead of the question that it should answer")
        self.inbox.cap = cap
        while True:
            received: bytes = yield send
            self.inbox.rest += received
            send = b""
            # Looked at before its length: a second startup packet ends here, at its first byte.
            if self.inbox.rest[:1] != b"p":
                what = self.inbox.rest[:1]
                raise self._broken(f"a message of type {what!r} where only an answer to the login may come")
            try:
                found = self.inbox.take()
            except RemoteProtocolError as broken:
                raise self._broken(str(broken)) from None
            if found is not None:
                return found[1]

    def _broken(self, text: str) -> Refused:
        log = f"login of user {self._user!r}: {text}"
        return refused(log, "08P01", text, reason=RefusalReason.PROTOCOL)

    def _deny(self, why: str) -> NoReturn:
        """Say no: the same words to the client whatever the reason was. Raises Refused."""
        raise refused(
            f"login of user {self._user!r} failed: {why}",
            "28P01",
            f'password authentication failed for user "{self._user}"',
            reason=RefusalReason.AUTH,
            before=self.owed,
        )
