"""``python -m proxy`` is ``penstock``. Nothing else belongs here."""

from proxy.cli import main

if __name__ == "__main__":
    main(prog_name="penstock")
