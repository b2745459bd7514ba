"""What listeners and pools share: how their TCP connections are watched."""

from proxy.settings.knobs import Number, SecondsOrOff, Table, WholeSeconds, knob


class SocketSettings(Table):
    """TCP keepalive: how soon a peer that has silently gone is noticed. Unix sockets ignore it."""

    tcp_keepalive: bool = knob(True, "Probe connections that are silent, so that a vanished peer is noticed.")
    tcp_keepalive_idle: WholeSeconds = knob("60s", "Silence before the first probe (whole seconds).")
    tcp_keepalive_interval: WholeSeconds = knob("10s", "Time between probes (whole seconds).")
    tcp_keepalive_count: Number = knob(6, "Unanswered probes after which the peer is gone.", ge=1, le=127)
    tcp_user_timeout: SecondsOrOff = knob("60s", "How long sent bytes may stay unacknowledged.")
