"""Whether files of certificates load, and what is wrong with each that does not, before anything uses them.

A sentence says nothing of what is in a key.
"""

import ssl

from proxy.relay.tls import Passphrase, no_passphrase


def mistakes(
    cert: str | None = None,
    key: str | None = None,
    ca: str | None = None,
    crl: str | None = None,
    ciphers: str | None = None,
) -> list[tuple[str, str]]:
    """Try them; return (``cert``, ``key``, ``ca``, ``crl`` or ``ciphers``, sentence) for each that is wrong.

    A key with a passphrase is a mistake: a daemon has nobody to ask.
    """
    given = (("cert", cert), ("key", key), ("ca", ca), ("crl", crl))
    found = [(name, _unreadable(path)) for name, path in given if path is not None]
    found = [(name, sentence) for name, sentence in found if sentence]
    if found:
        return found
    tried = (_authorities(ca), _revoked(crl), _pair(cert, key), _ciphers(ciphers))
    return [mistake for mistake in tried if mistake is not None]


def _pair(cert: str | None, key: str | None) -> tuple[str, str] | None:
    if cert is None or key is None:
        return None
    try:
        _context().load_cert_chain(cert, key, password=no_passphrase)
    except Passphrase as error:
        return "key", str(error)
    except OSError as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            return "key", "is not the key of the certificate"
        return "cert", f"the certificate and its key cannot be loaded ({_reason(error)})"
    return None


def _authorities(ca: str | None) -> tuple[str, str] | None:
    if ca is None:
        return None
    try:
        _context().load_verify_locations(cafile=ca)
    except OSError as error:
        return "ca", f"no certificates can be loaded from it ({_reason(error)})"
    return None


def _revoked(crl: str | None) -> tuple[str, str] | None:
    if crl is None:
        return None
    context = _context()
    try:
        context.load_verify_locations(cafile=crl)
    except OSError as error:
        return "crl", f"no list of revoked certificates can be loaded from it ({_reason(error)})"
    if not context.cert_store_stats()["crl"]:
        return "crl", "holds no list of revoked certificates; expected PEM, as `openssl ca -gencrl` writes it"
    return None


def _ciphers(ciphers: str | None) -> tuple[str, str] | None:
    if ciphers is None:
        return None
    try:
        _context().set_ciphers(ciphers)
    except (OSError, ValueError):
        return "ciphers", "names no cipher that OpenSSL knows; `openssl ciphers -v -tls1_2` lists them"
    return None


def _context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


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
