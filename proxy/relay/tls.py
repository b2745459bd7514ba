"""TLS contexts, for clients and for servers, from the words of the configuration. TLS 1.2 and newer only."""

import ssl


def for_clients(cert: str, key: str, ca: str | None, demand_certificate: bool) -> ssl.SSLContext:
    """The context of a listener; ``ca`` verifies the certificates of clients. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert, key)
    # A ticket would let a client come back without its certificate being looked at again.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    if ca is not None:
        context.load_verify_locations(cafile=ca)
        context.verify_mode = ssl.CERT_REQUIRED if demand_certificate else ssl.CERT_OPTIONAL
    return context


def certificate_of(cert: str) -> bytes:
    """The first certificate of a PEM file, in DER: the one that is shown. Raises OSError, ValueError."""
    with open(cert, encoding="ascii", errors="replace") as file:
        text = file.read()
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    start = text.index(begin)
    return ssl.PEM_cert_to_DER_cert(text[start : text.index(end, start) + len(end)])


def for_server(
    sslmode: str, rootcert: str | None, cert: str | None, key: str | None
) -> ssl.SSLContext | None:
    """The context towards a server, as libpq's sslmode means it; None where TLS is never asked for.

    Raises OSError.
    """
    if sslmode == "disable":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = sslmode == "verify-full"
    if sslmode in ("verify-ca", "verify-full"):
        context.verify_mode = ssl.CERT_REQUIRED
        if rootcert is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            context.load_verify_locations(cafile=rootcert)
    else:
        context.verify_mode = ssl.CERT_NONE
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context
