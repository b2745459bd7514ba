"""What ``penstock ctl`` says to a running daemon, over a Unix socket, and how the daemon hears it.

``commands`` is the interface that the daemon implements and the table of what may be asked; ``server``
listens, ``client`` asks. Nothing here knows a pool: it passes words on.
"""
