"""Turns the settings into who may log in, and how: accounts, directories, ways in, lookups.

Builds; asks nobody, and opens no file.
"""

import pwd
from typing import Final

from proxy.lookups import Lookups, Terms
from proxy.postgres.accounts import Account, Directory
from proxy.postgres.lookup import DEFAULT_QUERY
from proxy.postgres.served import Served
from proxy.postgres.userlist import Listed, account_of
from proxy.postgres.verifier import Verifier
from proxy.postgres.ways import Way, Ways
from proxy.settings import Settings
from proxy.settings.listeners import ListenerSettings
from proxy.settings.pools import PoolSettings
from proxy.settings.users import UserSettings

DEFAULT_DATABASE: Final = "postgres"


class Residents:
    """Who may log in at which listener. ``accounts`` are all who are listed anywhere."""

    def __init__(self, accounts: dict[str, Account], directories: dict[str, Directory]) -> None:
        self.accounts = accounts
        self._directories = directories

    def at(self, listener: str) -> Directory:
        """Those who may log in at this listener."""
        return self._directories[listener]

    def find(self, user: str) -> Account | None:
        """The account of a user at any listener, or None."""
        for directory in self._directories.values():
            found = directory.find(user)
            if found is not None:
                return found
        return None


def residents_of(settings: Settings, previous: Residents | None = None) -> Residents:
    """Who may log in: those listed in the configuration or in a file, and the pools' own users.

    ``previous`` are those that they replace: what was learned about a secret is not forgotten.
    """
    listed = {name: _account(name, user) for name, user in settings.users.items()}
    accounts = dict(listed)
    directories: dict[str, Directory] = {}
    own = _own_users(settings, accounts)
    first: Directory | None = None
    for name, listener in settings.listeners.items():
        here = dict(listed)
        userlist = listener.userlist if listener.auth_file is not None else settings.userlist
        for user, entry in (userlist or {}).items():
            if user not in listed:
                here[user] = accounts.setdefault(user, account_of(user, entry.secret))
        for user, account in own.items():
            here.setdefault(user, account)
        first = Directory(here.values(), _before(previous, name, first))
        directories[name] = first
    return Residents(accounts, directories)


def _before(previous: Residents | None, name: str, first: Directory | None) -> Directory | None:
    """Whose stand-ins a directory goes on with: at all listeners they are the same."""
    if previous is not None:
        known = previous._directories
        return known.get(name) or next(iter(known.values()), None)
    return first


def _account(name: str, user: UserSettings) -> Account:
    secret = user.secret.get_secret_value() if user.secret is not None else None
    text = user.verifier.get_secret_value() if user.verifier is not None else None
    return Account(
        name,
        password=secret,
        verifier=Verifier.parse(text) if text is not None and not user.md5 else None,
        md5=text if user.md5 else None,
        pools=frozenset(user.pools) if user.pools is not None else None,
        run_as=user.run_as or None,
        admin=user.admin,
    )


def own_account(pool: PoolSettings) -> Account:
    """Whom the sessions of a pool log in as, unless their client is listed."""
    dsn = pool.dsn
    return Account(dsn.user, password=dsn.password.get_secret_value() if dsn.password is not None else None)


def _own_users(settings: Settings, listed: dict[str, Account]) -> dict[str, Account]:
    """The pools' own users that are not listed in the configuration, each for the pools that are its own."""
    own: dict[str, Account] = {}
    for name, pool in settings.pools.items():
        user = pool.dsn.user
        if user in listed or pool.protocol != "postgres":
            continue
        known = own.get(user)
        pools = frozenset({name}) | (known.pools or frozenset() if known is not None else frozenset())
        password = pool.dsn.password.get_secret_value() if pool.dsn.password is not None else None
        if password is None and known is not None:
            password = known.password
        own[user] = Account(user, password=password, pools=pools)
    return own


def ways_of(listener: ListenerSettings, settings: Settings) -> Ways:
    """How clients prove who they are at a listener."""
    maps = {name: table.mapping for name, table in settings.maps.items()}
    mapping = maps.get(listener.map) if listener.map is not None else None
    clientcert = "" if listener.clientcert == "off" else listener.clientcert
    # With rules, what they do not say does not hold.
    usual = Way(listener.auth, mapping, clientcert)
    return Ways(usual, listener.rules, maps, listener.cert_name, os_user)


def os_user(uid: int) -> str:
    """The name of a user of the operating system; "" where the number has none. May ask the network."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return ""


def lookups_of(name: str, pool: PoolSettings, served: Served) -> Lookups:
    """The lookups of a pool; without ``auth_query`` there are none."""
    made = Lookups(name, served)
    made.adopt(terms_of(pool))
    return made


def terms_of(pool: PoolSettings) -> Terms | None:
    """What is looked up, and as whom; None: nobody is looked up."""
    if pool.auth_query is None:
        return None
    user, secret, dsn = pool.auth_user, pool.auth_secret, pool.dsn
    account = None
    if user is not None and (user != dsn.user or secret is not None):
        account = Account(user, password=secret.get_secret_value() if secret is not None else None)
    keep = 0.0 if pool.auth_cache == float("inf") else pool.auth_cache
    statement = DEFAULT_QUERY if pool.auth_query == "default" else pool.auth_query
    database = pool.auth_database or dsn.database or DEFAULT_DATABASE
    return Terms(statement, account, user or dsn.user, database, keep)


def file_changes(before: Settings, after: Settings) -> list[str]:
    """What changed in the files of the login, as sentences that count and name nobody."""
    changes = _list_changes("auth_file", before.userlist, after.userlist)
    for name, listener in after.listeners.items():
        known = before.listeners.get(name)
        if known is None:
            continue
        changes += _list_changes(f"listeners.{name}.auth_file", known.userlist, listener.userlist)
        old, new = _written(known), _written(listener)
        if old != new and old and new:
            changes.append(f"listeners.{name}.hba_file: its rules have changed, {len(old)} -> {len(new)}")
    return changes


def _written(listener: ListenerSettings) -> list[str]:
    return [rule.written for rule in listener.rules.all] if listener.rules is not None else []


def _list_changes(name: str, before: dict[str, Listed] | None, after: dict[str, Listed] | None) -> list[str]:
    old, new = before or {}, after or {}
    added, removed = len(new.keys() - old.keys()), len(old.keys() - new.keys())
    changed = sum(old[user].secret != new[user].secret for user in old.keys() & new.keys())
    if not added and not removed and not changed:
        return []
    return [f"{name}: {added} users added, {changed} changed, {removed} removed"]
