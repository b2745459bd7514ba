"""Rows that a migration writes, while the tables still lack what the next one adds."""

from typing import Any, ClassVar

from django.db import migrations


def fill(apps: Any, editor: Any) -> None:
    """The shelf that all workers count on."""
    shelf = apps.get_model("shop", "Shelf")
    shelf.objects.using(editor.connection.alias).create(name="shared")


class Migration(migrations.Migration):
    """Data."""

    dependencies: ClassVar = [("shop", "0001_tables")]
    operations: ClassVar = [migrations.RunPython(fill, migrations.RunPython.noop)]
