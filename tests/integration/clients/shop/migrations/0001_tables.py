"""The tables, without what comes next."""

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """Two tables, one of which refers to the other."""

    initial = True
    operations: ClassVar = [
        migrations.CreateModel(
            name="Shelf",
            fields=[
                ("id", models.BigAutoField(primary_key=True)),
                ("name", models.CharField(max_length=50, unique=True)),
                ("seen", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name="Thing",
            fields=[
                ("id", models.BigAutoField(primary_key=True)),
                (
                    "shelf",
                    models.ForeignKey("shop.Shelf", on_delete=models.CASCADE, related_name="things"),
                ),
                ("turn", models.IntegerField()),
                ("said", models.TextField()),
            ],
        ),
    ]
