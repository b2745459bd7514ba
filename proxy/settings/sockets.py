"""What listeners and pools share: how their TCP connections are watched, and their files of certificates.

Loads certificates only to see whether they load; keeps none.
"""

import ssl

from proxy.settings.knobs import Number, SecondsOrOff, Table, WholeSeconds, knob


class SocketSettings(Table):
    """TCP keepalive: how soon a peer that has silently gone is noticed. Unix sockets ignore it."""

    tcp_keepalive: bool = knob(True, "Probe connections that are silent, so that a vanished peer is noticed.")
    tcp_keepalive_idle: WholeSeconds = knob("60s", "Silence before the first probe (whole seconds).")
    tcp_keepalive_interval: WholeSeconds = knob("10s", "Time between probes (whole seconds).")
    tcp_keepalive_count: Number = knob(6, "Unanswered probes after which the peer is gone.", ge=1, le=127)
    tcp_user_timeout: SecondsOrOff = knob("60s", "How long sent bytes may stay unacknowledged.")


def load_certificates(cert: str | None, key: str | None, ca: str | None) -> list[tuple[str, str]]:
    """Try to load the files; return (which of ``cert``, ``key``, ``ca``, sentence) for each that is wrong.

    A key with a passphrase is a mistake: a daemon has nobody to ask.
    """
    mistakes = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name, path in (("cert", cert), ("key", key), ("ca", ca)):
        sentence = _unreadable(path) if path is not None else ""
        if sentence:
            mistakes.append((name, sentence))
    if mistakes:
        return mistakes
    if ca is not None:
        try:
            context.load_verify_locations(cafile=ca)
        except (ssl.SSLError, OSError) as error:
            mistakes.append(("ca", f"no certificates can be loaded from it ({_reason(error)})"))
    if cert is not None and key is not None:
        try:
            context.load_cert_chain(cert, key, password=_no_passphrase)
        except _Passphrase:
            mistakes.append(("key", "the key has a passphrase, which is not supported: store it without one"))
        except (ssl.SSLError, OSError) as error:
            mistakes.append(("cert", f"the certificate and its key cannot be loaded ({_reason(error)})"))
    return mistakes


class _Passphrase(Exception):
    pass


def _no_passphrase() -> str:
    raise _Passphrase


def _unreadable(path: str) -> str:
    try:
        with open(path, "rb"):
            return ""
    except OSError as error:
        return f"the file cannot be read ({error.strerror}); expected the path of a PEM file"
    except ValueError:
        return "expected the path of a PEM file"


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or "no PEM data"
