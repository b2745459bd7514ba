"""What was wrong with a TLS handshake, in a word for the metrics and a sentence for the log.

Knows the names that OpenSSL gives to its reasons; shows nothing that came over the wire.
"""

import ssl
from typing import Final

from proxy.reasons import TlsFailure

_VERSION: Final = "the {peer} speaks no version of TLS that is allowed here"
_CIPHER: Final = "there is no cipher, curve or signature algorithm that both sides allow"
_NOT_TLS: Final = "what the {peer} sent is not TLS"
_HTTP: Final = "the {peer} speaks HTTP"
_NO_CERTIFICATE: Final = "the {peer} showed no certificate, and one is demanded"
_OURS_MISSING: Final = "the {peer} demands a certificate, and none is configured"
_ALPN: Final = 'the {peer} does not agree to "postgresql" by ALPN'

_KNOWN: Final = {
    "HTTP_REQUEST": (TlsFailure.NOT_TLS, _HTTP),
    "HTTPS_PROXY_REQUEST": (TlsFailure.NOT_TLS, _HTTP),
    "WRONG_VERSION_NUMBER": (TlsFailure.NOT_TLS, _NOT_TLS),
    "WRONG_SSL_VERSION": (TlsFailure.NOT_TLS, _NOT_TLS),
    "BAD_RECORD_TYPE": (TlsFailure.NOT_TLS, _NOT_TLS),
    "PACKET_LENGTH_TOO_LONG": (TlsFailure.NOT_TLS, _NOT_TLS),
    "UNEXPECTED_MESSAGE": (TlsFailure.NOT_TLS, _NOT_TLS),
    "RECORD_LAYER_FAILURE": (TlsFailure.NOT_TLS, _NOT_TLS),
    "UNSUPPORTED_PROTOCOL": (TlsFailure.VERSION, _VERSION),
    "UNKNOWN_PROTOCOL": (TlsFailure.VERSION, _VERSION),
    "VERSION_TOO_LOW": (TlsFailure.VERSION, _VERSION),
    "NO_PROTOCOLS_AVAILABLE": (TlsFailure.VERSION, _VERSION),
    "TLSV1_ALERT_PROTOCOL_VERSION": (TlsFailure.VERSION, _VERSION),
    "INAPPROPRIATE_FALLBACK": (TlsFailure.VERSION, _VERSION),
    "NO_SHARED_CIPHER": (TlsFailure.CIPHER, _CIPHER),
    "NO_SHARED_GROUP": (TlsFailure.CIPHER, _CIPHER),
    "NO_SUITABLE_KEY_SHARE": (TlsFailure.CIPHER, _CIPHER),
    "NO_SUITABLE_SIGNATURE_ALGORITHM": (TlsFailure.CIPHER, _CIPHER),
    "SSLV3_ALERT_HANDSHAKE_FAILURE": (TlsFailure.CIPHER, _CIPHER),
    "SSL/TLS_ALERT_HANDSHAKE_FAILURE": (TlsFailure.CIPHER, _CIPHER),
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": (TlsFailure.CIPHER, _CIPHER),
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": (TlsFailure.NO_CERTIFICATE, _NO_CERTIFICATE),
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": (TlsFailure.NO_CERTIFICATE, _OURS_MISSING),
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": (TlsFailure.ALPN, _ALPN),
    "NO_APPLICATION_PROTOCOL": (TlsFailure.ALPN, _ALPN),
}

# The peer's words about our certificate, as alerts name them.
_COMPLAINTS: Final = {
    "UNKNOWN_CA": "it does not know who signed it",
    "BAD_CERTIFICATE": "it calls it bad",
    "CERTIFICATE_UNKNOWN": "it gives no reason",
    "CERTIFICATE_EXPIRED": "it has expired",
    "CERTIFICATE_REVOKED": "it was revoked",
    "UNSUPPORTED_CERTIFICATE": "it does not support its kind",
    "DECRYPT_ERROR": "its signature does not fit",
}


def explain(error: OSError, peer: str) -> tuple[TlsFailure, str]:
    """The kind of failure, and a sentence about it. ``peer`` is "client" or "server"."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsFailure.CERTIFICATE, f"certificate verify failed: {error.verify_message or error.reason}"
    if not isinstance(error, ssl.SSLError):
        if isinstance(error, (TimeoutError, ConnectionAbortedError)):
            return TlsFailure.TIMEOUT, "the handshake took too long"
        return TlsFailure.GONE, f"the {peer} closed the connection while TLS began"
    reason = error.reason or ""
    complaint = _COMPLAINTS.get(reason.partition("_ALERT_")[2])
    if complaint is not None:
        return TlsFailure.REJECTED, f"the {peer} does not accept our certificate: {complaint}"
    known = _KNOWN.get(reason)
    if known is not None:
        return known[0], known[1].format(peer=peer)
    if "EOF" in reason:
        return TlsFailure.GONE, f"the {peer} closed the connection while TLS began"
    return TlsFailure.OTHER, reason.replace("_", " ").lower() or "the reason is not known"
