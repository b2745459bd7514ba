"""How its tables came to be, in several steps so that tables that are in use are altered."""
