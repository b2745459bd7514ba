"""Django's ORM over psycopg: migrations, models, transactions, locks and cursors, in threads.

Each alias is one way to be connected. Django prepares statements and binds on the server when its OPTIONS
say so, and iterator() opens a cursor on the server, which outlives its transaction outside of atomic().
"""

from collections.abc import Callable, Iterator
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import IntegrityError, connections, transaction
from django.db.models import F, Sum
from psycopg import IsolationLevel

from integration.clients.crowd import WORKERS, in_threads, said
from servers import Penstock

pytestmark = pytest.mark.integration

ALIASES = {
    "default": {},
    "binding": {"OPTIONS": {"server_side_binding": True}, "TIME_ZONE": "Asia/Tokyo"},
    "prepared": {"OPTIONS": {"server_side_binding": True, "prepare_threshold": 0}},
    "no_cursors": {"DISABLE_SERVER_SIDE_CURSORS": True},
    "isolated": {"OPTIONS": {"isolation_level": IsolationLevel.READ_UNCOMMITTED}},
}
TURNS = 4


@pytest.fixture(scope="module")
def configured(shared_penstock: Penstock) -> None:
    """Django can be configured once in a process."""
    server = shared_penstock.server
    usual = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": "127.0.0.1",
        "PORT": shared_penstock.port,
        "USER": server.user,
        "PASSWORD": server.password,
        "NAME": server.database,
    }
    settings.configure(
        DATABASES={alias: usual | more for alias, more in ALIASES.items()},
        INSTALLED_APPS=["integration.clients.shop"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
        LOGGING_CONFIG=None,
    )
    django.setup()


@pytest.fixture(params=ALIASES)
def alias(request: pytest.FixtureRequest, configured: None, penstock: Penstock) -> Iterator[str]:
    """A way to be connected, with the tables as its migrations made them."""
    name: str = request.param
    call_command("migrate", database=name, verbosity=0)
    yield name
    call_command("migrate", "shop", "zero", database=name, verbosity=0)
    connections.close_all()


def crowd(work: Callable[[int], None]) -> None:
    """Every thread has connections of its own, and nobody else closes them."""

    def then_close(number: int) -> None:
        try:
            work(number)
        finally:
            connections.close_all()

    in_threads(then_close)


def models() -> Any:
    """Imported late: models cannot be declared before Django is configured."""
    from integration.clients.shop import models

    return models


def fill(alias: str, number: int) -> Any:
    """A worker's own shelf and its things."""
    shop = models()
    shelf = shop.Shelf.objects.using(alias).create(name=f"shelf {number}")
    for turn in range(TURNS):
        shop.Thing.objects.using(alias).create(
            shelf=shelf, turn=turn, said=said(number, turn), more={"worker": number}
        )
    return shelf


def test_models(alias: str) -> None:
    shop = models()

    def work(number: int) -> None:
        shelf = fill(alias, number)
        things = shop.Thing.objects.using(alias).filter(shelf__name=f"shelf {number}").order_by("turn")
        assert [(thing.said, thing.more["worker"]) for thing in things] == [
            (said(number, turn), number) for turn in range(TURNS)
        ]
        things.filter(turn=0).update(said="changed")
        assert things.get(turn=0).said == "changed"
        assert things.filter(more__worker=number).count() == TURNS
        assert things.aggregate(total=Sum("turn"))["total"] == sum(range(TURNS))
        assert shop.Shelf.objects.using(alias).prefetch_related("things").get(pk=shelf.pk).name == shelf.name
        shop.Thing.objects.using(alias).bulk_create(
            [shop.Thing(shelf=shelf, turn=turn, said="") for turn in range(100, 150)]
        )
        assert shop.Thing.objects.using(alias).filter(shelf=shelf, turn__gte=100).delete()[0] == 50
        assert shelf.seen == shop.Shelf.objects.using(alias).get(pk=shelf.pk).seen

    crowd(work)
    assert shop.Thing.objects.using(alias).count() == WORKERS * TURNS


def test_transactions_and_locks(alias: str) -> None:
    shop = models()

    def work(number: int) -> None:
        with transaction.atomic(using=alias):
            shelf = fill(alias, number)
            with pytest.raises(IntegrityError), transaction.atomic(using=alias):
                shop.Thing.objects.using(alias).create(shelf=shelf, turn=0, said="a second one")
        with transaction.atomic(using=alias):
            shop.Thing.objects.using(alias).filter(shelf=shelf).delete()
            transaction.set_rollback(True, using=alias)
        assert shop.Thing.objects.using(alias).filter(shelf=shelf).count() == TURNS
        for _ in range(3):
            with transaction.atomic(using=alias):
                shared = shop.Shelf.objects.using(alias).select_for_update().get(name="shared")
                shared.count += 1
                shared.save()
        shop.Shelf.objects.using(alias).filter(name="shared").update(count=F("count") + 1)

    crowd(work)
    assert shop.Shelf.objects.using(alias).get(name="shared").count == WORKERS * 4


def test_iterators(alias: str) -> None:
    shop = models()

    def work(number: int) -> None:
        shelf = fill(alias, number)
        shop.Thing.objects.using(alias).bulk_create(
            [shop.Thing(shelf=shelf, turn=turn, said="") for turn in range(TURNS, 60)]
        )
        own = shop.Thing.objects.using(alias).filter(shelf=shelf).order_by("turn")
        with transaction.atomic(using=alias):
            assert [thing.turn for thing in own.iterator(chunk_size=7)] == list(range(60))
        # Outside of a transaction the cursor is one WITH HOLD.
        assert [thing.turn for thing in own.iterator(chunk_size=7)] == list(range(60))
        begun = own.iterator(chunk_size=7)
        assert next(begun).turn == 0
        begun.close()

    crowd(work)


def test_settings_of_a_connection(alias: str) -> None:
    def work(number: int) -> None:
        zone = ALIASES[alias].get("TIME_ZONE", "UTC")
        level = "read uncommitted" if alias == "isolated" else "read committed"
        connection = connections[alias]
        for _ in range(5):
            with connection.cursor() as cursor:
                cursor.execute("SELECT current_setting('TimeZone'), %s::int", [number])
                assert cursor.fetchone() == (zone, number)
            with transaction.atomic(using=alias), connection.cursor() as cursor:
                cursor.execute("SELECT current_setting('transaction_isolation'), %s::int", [number])
                assert cursor.fetchone() == (level, number)

    crowd(work)
