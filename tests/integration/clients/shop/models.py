"""Its tables."""

from typing import ClassVar

from django.db import models


class Shelf(models.Model):
    """One for each worker, and one that all of them count on."""

    name = models.CharField(max_length=50, unique=True)
    count = models.IntegerField(default=0)
    seen = models.DateTimeField(auto_now_add=True)

    class Meta:
        """``shop_shelf``, as Django names it."""

        app_label = "shop"


class Thing(models.Model):
    """What lies on a shelf."""

    shelf = models.ForeignKey(Shelf, on_delete=models.CASCADE, related_name="things")
    turn = models.IntegerField()
    said = models.TextField()
    more = models.JSONField(default=dict)

    class Meta:
        """A second thing of that turn is an error."""

        app_label = "shop"
        constraints: ClassVar = [models.UniqueConstraint(fields=["shelf", "turn"], name="one_a_turn")]
