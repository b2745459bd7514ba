import hashlib
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from proxy.postgres.accounts import SALTED_CAP, Account, Directory
from proxy.postgres.verifier import Verifier, keys_of, salt_password
from proxy.steps import Work

QUICK = Verifier.make("secret", b"0123456789abcdef", 2)
HASH = hashlib.md5(b"secretann").hexdigest()


def settle(conversation: Any) -> tuple[Any, int]:
    """The result of a conversation that only works, and how often it did."""
    works = 0
    try:
        step = next(conversation)
        while True:
            assert isinstance(step, Work)
            works += 1
            step = conversation.send(step.call())
    except StopIteration as stop:
        return stop.value, works


def test_nothing_secret_is_shown() -> None:
    account = Account("ann", password="canary", verifier=QUICK, md5="0" * 32)
    assert repr(account) == "Account('ann')"
    assert "canary" not in f"{account} {account!r}"


@pytest.mark.parametrize("md5", ["", "md5", "md5" + "0" * 31, "z" * 32, "secret"])
def test_what_is_no_md5_hash_is_refused_without_repeating_it(md5: str) -> None:
    with pytest.raises(ValueError, match="32 hex digits") as caught:
        Account("ann", md5=md5)
    assert "secret" not in str(caught.value)


def test_an_empty_password_is_refused() -> None:
    with pytest.raises(ValueError, match="empty password"):
        Account("ann", password="")


def test_md5_hashes_are_those_of_pg_shadow() -> None:
    assert Account("ann", password="secret").md5_hash() == HASH
    assert Account("ann", password="secret").md5_hash("bob") == hashlib.md5(b"secretbob").hexdigest()
    assert Account("ann", md5=f"md5{HASH.upper()}").md5_hash() == HASH
    assert Account("ann", md5=HASH).md5_hash("bob") is None
    assert Account("ann", verifier=QUICK).md5_hash() is None


def test_a_storm_of_logins_does_the_slow_work_once(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[bytes] = []
    all_came = Barrier(4)

    def noted(password: str | bytes, salt: bytes, iterations: int) -> bytes:
        done.append(salt)
        return salt_password(password, salt, iterations)

    def call(step: Work) -> bytes:
        all_came.wait(10)  # nobody begins before all four threads are at it
        salted: bytes = step.call()
        return salted

    monkeypatch.setattr("proxy.postgres.accounts.salt_password", noted)
    account = Account("ann", password="secret")
    with ThreadPoolExecutor(4) as threads:
        steps = [
            next(account.salted_password(salt, 20_000)) for salt in (b"salt", b"other") for _ in range(4)
        ]
        found = list(threads.map(call, steps))
    assert len(set(found)) == 2
    assert sorted(done) == [b"other", b"salt"]


def test_a_password_is_turned_into_a_verifier_once() -> None:
    account = Account("ann", password="secret")
    first, works = settle(account.scram_verifier())
    again, no_works = settle(account.scram_verifier())
    assert first is again
    assert (works, no_works) == (1, 0)
    assert first.matches(keys_of(salt_password("secret", first.salt, first.iterations))[0])


def test_two_derivations_at_once_agree() -> None:
    account = Account("ann", password="secret")
    one, other = account.scram_verifier(), account.scram_verifier()
    works = [next(one), next(other)]
    assert works[0].call() is works[1].call()


def test_a_given_verifier_is_used_as_it_is() -> None:
    assert settle(Account("ann", verifier=QUICK, password="other").scram_verifier()) == (QUICK, 0)


def test_salted_keys_are_kept_for_each_salt_and_count_and_only_so_many() -> None:
    account = Account("ann", password="secret")
    key, works = settle(account.salted_password(b"salt", 3))
    assert (key, works) == (salt_password("secret", b"salt", 3), 1)
    assert settle(account.salted_password(b"salt", 3)) == (key, 0)
    assert settle(account.salted_password(b"salt", 4))[1] == 1
    for number in range(3 * SALTED_CAP):
        settle(account.salted_password(b"%d" % number, 1))
        assert len(account._salted) <= SALTED_CAP


@pytest.mark.parametrize(
    "secret", [{"password": "secret"}, {"verifier": QUICK}, {"md5": HASH}, {"md5": HASH, "verifier": QUICK}]
)
def test_a_password_in_clear_text_is_checked_against_what_there_is(secret: dict[str, Any]) -> None:
    assert Account("ann", **secret).accepts(b"secret")
    assert not Account("ann", **secret).accepts(b"secre")
    assert not Account("ann", **secret).accepts(b"")


def test_an_account_without_a_secret_accepts_nothing() -> None:
    assert not Account("ann").accepts(b"")
    assert not Account("ann").accepts(b"secret")


def test_a_password_in_clear_text_teaches_the_client_key() -> None:
    account = Account("ann", verifier=QUICK)
    assert not account.accepts(b"wrong")
    assert account.client_key is None
    assert account.accepts(b"secret")
    assert account.client_key is not None
    assert QUICK.matches(account.client_key)


def test_pools_limit_where_an_account_may_go() -> None:
    assert Account("ann").may_use("any")
    assert Account("ann", pools=frozenset({"app"})).may_use("app")
    assert not Account("ann", pools=frozenset({"app"})).may_use("other")
    assert not Account("ann", pools=frozenset()).may_use("app")


def test_a_directory_finds_only_whom_it_lists() -> None:
    ann = Account("ann", password="x")
    directory = Directory([ann])
    assert directory.find("ann") is ann
    assert directory.find("Ann") is None
    assert directory.find("bob") is None


def test_a_stand_in_is_the_same_each_time_and_lets_nobody_in() -> None:
    directory = Directory([Account("ann", verifier=Verifier.make("x", b"y" * 20, 7))])
    one, other = directory.stand_in("bob"), directory.stand_in("bob")
    assert one.is_mock
    assert one.verifier == other.verifier
    assert one.verifier is not None
    assert (one.verifier.iterations, len(one.verifier.salt)) == (7, 20)
    assert not one.accepts(b"")
    assert not one.accepts(b"x")
    assert Directory([]).stand_in("bob").is_mock


def test_a_stand_in_is_asked_by_the_method_that_some_real_account_would_be() -> None:
    only_scram = Directory([Account("ann", verifier=QUICK)])
    only_md5 = Directory([Account("ann", md5=HASH)])
    mixed = Directory([Account("ann", verifier=QUICK), Account("bob", md5=HASH), Account("cy", password="x")])
    names = [f"user{number}" for number in range(64)]
    assert all(only_scram.stand_in(name).md5_hash() is None for name in names)
    assert all(only_md5.stand_in(name).md5_hash() is not None for name in names)
    assert len({mixed.stand_in(name).md5_hash() is None for name in names}) == 2


def test_a_reload_keeps_what_was_learned_about_the_same_secret() -> None:
    old_ann, old_bob = Account("ann", verifier=QUICK), Account("bob", password="secret")
    old = Directory([old_ann, old_bob])
    old_ann.client_key = b"key"
    verifier, _ = settle(old_bob.scram_verifier())
    settle(old_bob.salted_password(b"salt", 1))
    new = Directory([Account("ann", verifier=QUICK), Account("bob", password="secret")], old)
    ann, bob = new.find("ann"), new.find("bob")
    assert ann is not None
    assert bob is not None
    assert ann.client_key == b"key"
    assert settle(bob.scram_verifier()) == (verifier, 0)
    assert settle(bob.salted_password(b"salt", 1))[1] == 0
    assert new.stand_in("eve").verifier == old.stand_in("eve").verifier
    assert new.stand_in("eve").md5_hash() == old.stand_in("eve").md5_hash()


def test_a_reload_forgets_what_belonged_to_another_secret() -> None:
    old_ann, old_bob = Account("ann", verifier=QUICK), Account("bob", password="secret")
    old_ann.client_key = b"key"
    settle(old_bob.scram_verifier())
    new = Directory(
        [Account("ann", verifier=Verifier.make("z", iterations=1)), Account("bob", password="changed")],
        Directory([old_ann, old_bob]),
    )
    ann, bob = new.find("ann"), new.find("bob")
    assert ann is not None
    assert bob is not None
    assert ann.client_key is None
    assert settle(bob.scram_verifier())[1] == 1
