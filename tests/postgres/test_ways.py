"""The ways in that a listener may offer, through the whole conversation of a login."""

from typing import Any

import pytest

from entrance import HELLO, TLS, admitted, door, md5, refused, scram
from logins import Pump, answer, fields, startup
from postgres.test_certificate_names import made
from proxy.caller import Caller
from proxy.postgres.accounts import Account, Directory
from proxy.postgres.client_login import log_in
from proxy.postgres.hba_reading import read_hba
from proxy.postgres.lookup import Lookup
from proxy.postgres.mapping import Entry, Mapping
from proxy.postgres.verifier import Verifier
from proxy.postgres.ways import Way, Ways

ANN = made((0x0C, b"ann"))
PEOPLE = {1: "ann", 2: "root"}.get


def gate(way: Way | None = None, rules: str = "", caller: Caller | None = None, **options: Any) -> Any:
    maps = {"ours": Mapping("ours", [Entry("root", ["ann"]), Entry("/^(.*)nn$", ["max"])])}
    ways = Ways(
        way or Way("scram-sha-256"),
        read_hba(rules) if rules else None,
        maps,
        os_user=lambda uid: PEOPLE(uid, ""),
    )
    return door(ways=ways, caller=caller or Caller("192.0.2.7", "192.0.2.1"), **options)


def secured(place: Any, certificate: bytes | None, *script: Any) -> Any:
    return admitted(place, [TLS, HELLO, *script], certificate=certificate)


def turned_away(place: Any, certificate: bytes | None, *script: Any) -> dict[str, str]:
    return fields(refused(place, [TLS, HELLO, *script], certificate=certificate).reply)


def test_a_certificate_is_the_proof() -> None:
    found = secured(gate(Way("cert")), ANN)
    assert (found.account.name, found.mechanism, found.reply) == ("ann", "cert", b"")
    no = turned_away(gate(Way("cert")), made((0x0C, b"bob")))
    assert (no["C"], no["M"]) == ("28000", 'certificate authentication failed for user "ann"')
    assert "needs a certificate" in turned_away(gate(Way("cert")), None)["M"]


def test_an_unknown_user_with_its_certificate_is_told_what_any_other_is() -> None:
    zoe, bob = made((0x0C, b"zoe")), made((0x0C, b"bob"))
    hello = startup(user="zoe", database="app")
    answers = {
        refused(gate(Way("cert")), [TLS, hello], certificate=certificate).reply for certificate in (zoe, bob)
    }
    assert len(answers) == 1


def test_a_certificate_besides_the_password() -> None:
    way = Way("scram-sha-256", clientcert="verify-full")
    assert secured(gate(way), ANN, *scram()).account.name == "ann"
    assert turned_away(gate(way), ANN, *scram("wrong"))["C"] == "28P01"
    assert turned_away(gate(way), made((0x0C, b"bob")), *scram())["C"] == "28000"
    any_of_them = Way("scram-sha-256", clientcert="verify-ca")
    assert secured(gate(any_of_them), made((0x0C, b"bob")), *scram()).account.name == "ann"
    assert turned_away(gate(any_of_them), None, *scram())["C"] == "28000"


@pytest.mark.parametrize(("uid", "mapped", "is_in"), [(1, False, True), (2, False, False), (2, True, True)])
@pytest.mark.parametrize("unknown", [False, True])
def test_a_peer_is_who_the_kernel_says(uid: int, mapped: bool, is_in: bool, unknown: bool) -> None:
    mapping = Mapping("ours", [Entry("root", ["ann"])]) if mapped else None
    place = gate(Way("peer", mapping), caller=Caller("", "", -1 if unknown else uid), is_local=True)
    if is_in and not unknown:
        assert admitted(place, [HELLO]).mechanism == "peer"
    else:
        no = fields(refused(place, [HELLO]).reply)
        assert (no["C"], no["M"]) == ("28000", 'peer authentication failed for user "ann"')


def test_rules_choose_the_way_by_the_connection() -> None:
    rules = (
        "hostssl all all 192.0.2.0/24 cert map=ours\n"
        "hostnossl all ann 192.0.2.0/24 scram-sha-256\n"
        "host all ann 0.0.0.0/0 reject\nlocal all all peer map=ours\n"
    )
    assert admitted(gate(rules=rules), [HELLO, *scram()]).mechanism == "scram-sha-256"
    hello = startup(user="max", database="app")
    assert admitted(gate(rules=rules), [TLS, hello], certificate=ANN).mechanism == "cert"
    far = refused(gate(rules=rules, caller=Caller("198.51.100.1")), [HELLO])
    assert "a rule of hba_file rejects host" in fields(far.reply)["M"]
    none = refused(gate(rules=rules, caller=Caller("198.51.100.1")), [startup(user="bob", database="app")])
    said = fields(none.reply)
    assert said["C"] == "28000"
    assert said["M"] == (
        'no rule of hba_file lets in host "198.51.100.1", user "bob", database "app", without TLS'
    )
    local = gate(rules=rules, caller=Caller("", "", 2), is_local=True)
    assert admitted(local, [HELLO]).mechanism == "peer"


def test_rules_say_the_same_of_users_and_databases_that_do_not_exist() -> None:
    rules = "host app ann 0.0.0.0/0 scram-sha-256\n"
    for user, database in (("max", "app"), ("nobody", "app"), ("ann", "nothing")):
        reply = refused(gate(rules=rules), [startup(user=user, database=database)]).reply
        assert fields(reply)["M"].startswith("no rule of hba_file lets in")


# --- users that are looked up ---


class Looked(Lookup):
    """A lookup that answers what the test says, question by question."""

    def __init__(self, *answers: Account | None) -> None:
        self.answers = list(answers)
        self.questions: list[str] = []

    async def find(self, user: str) -> Account | None:
        self.questions.append(user)
        return self.answers.pop(0)

    async def find_again(self, user: str) -> Account | None:
        return await self.find(user)

    def forget(self, user: str) -> None:
        raise AssertionError


def zoe(password: str = "secret") -> Account:
    return Account("zoe", verifier=Verifier.make(password, b"0123456789abcdef", 2), pools=frozenset({"app"}))


def with_lookup(lookup: Lookup, auth: str = "scram-sha-256") -> Any:
    return door(auth, lookup_of=lambda pool: lookup)


ZOE = startup(user="zoe", database="app")


def test_a_user_that_is_found_proves_itself() -> None:
    lookup = Looked(found := zoe())
    assert admitted(with_lookup(lookup), [ZOE, *scram()]).account is found
    assert found.client_key is not None
    assert lookup.questions == ["zoe"]


def test_nobody_is_looked_up_who_is_listed_or_asks_for_a_database_that_is_none() -> None:
    lookup = Looked()
    admitted(with_lookup(lookup), [HELLO, *scram()])
    refused(with_lookup(lookup), [startup(user="zoe", database="nothing"), *scram()])
    assert lookup.questions == []


@pytest.mark.parametrize("answers", [(None, None), (zoe("other"), zoe("other")), (zoe("other"), None)])
def test_who_is_not_found_is_told_as_who_is_wrong(answers: tuple[Any, ...]) -> None:
    lookup = Looked(*answers)
    lookup.shape = (2, 16)
    no = fields(refused(with_lookup(lookup), [ZOE, *scram()]).reply)
    assert (no["C"], no["M"]) == ("28P01", 'password authentication failed for user "zoe"')
    assert lookup.questions == ["zoe", "zoe"]


@pytest.mark.parametrize("auth", ["password", "md5"])
@pytest.mark.parametrize("before", [None, Account("zoe", password="old")])
def test_a_password_that_has_changed_is_checked_once_more(auth: str, before: Account | None) -> None:
    lookup = Looked(before, after := Account("zoe", password="secret"))
    lookup.shape = None
    place = with_lookup(lookup, auth)
    if auth == "md5" and not place.directory.stand_in("zoe").md5_hash():
        place = door(auth, lookup_of=lambda pool: lookup, directory=Directory([Account("max", md5="0" * 32)]))
    shown = answer(b"secret\0") if auth == "password" else md5("zoe", "secret")
    assert admitted(place, [ZOE, shown]).account is after


def test_the_stand_in_looks_like_those_that_were_found() -> None:
    lookup = Looked(None, None)
    lookup.shape = (77, 12)
    pump = Pump(log_in(with_lookup(lookup)))
    pump.feed(ZOE)
    challenge = pump.feed(scram()[0](pump.out))
    assert b",i=77" in challenge
