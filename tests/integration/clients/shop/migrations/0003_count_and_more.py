"""Columns, a constraint and an index for tables that have rows already."""

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """As in models.py from here on."""

    dependencies: ClassVar = [("shop", "0002_shared_shelf")]
    operations: ClassVar = [
        migrations.AddField("shelf", "count", models.IntegerField(default=0)),
        migrations.AddField("thing", "more", models.JSONField(default=dict)),
        migrations.AddConstraint(
            "thing", models.UniqueConstraint(fields=["shelf", "turn"], name="one_a_turn")
        ),
    ]
