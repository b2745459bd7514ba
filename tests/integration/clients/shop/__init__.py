"""A small app for the tests of Django: shelves and what lies on them."""
