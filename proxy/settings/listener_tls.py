"""TLS of a listener: certificates by the name that is asked for, and whether all of its files load."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from proxy.relay.tls import ListenerFiles
from proxy.relay.tls_files import mistakes
from proxy.settings.knobs import Table, knob
from proxy.settings.mistakes import Mistake

if TYPE_CHECKING:
    from proxy.settings.listeners import ListenerSettings


class SniSettings(Table):
    """The certificate for clients that ask for one name; `*.db.example.com` stands for every name of one more
    step.
    """

    cert_file: str = knob(
        ..., "The certificate and its chain, PEM.", examples=["/etc/penstock/db.example.com.crt"]
    )
    key_file: str = knob(
        ...,
        "The private key, PEM, without a passphrase.",
        examples=["/etc/penstock/db.example.com.key"],
    )


def tls_mistakes(listener: "ListenerSettings") -> Iterator[Mistake]:
    """Yield what is wrong with the TLS of a listener; its files are tried."""
    if listener.tls_mode == "disable":
        return
    for name in ("tls_cert_file", "tls_key_file"):
        if getattr(listener, name) is None:
            yield (name,), f'is required when tls_mode is "{listener.tls_mode}"'
    if listener.tls_mode == "verify-ca" and listener.tls_ca_file is None:
        yield ("tls_ca_file",), 'is required when tls_mode is "verify-ca"'
    crl = listener.tls_crl_file
    if crl is not None and listener.tls_ca_file is None:
        yield ("tls_crl_file",), "needs tls_ca_file: only certificates that are verified can be revoked"
        crl = None
    files = (listener.tls_cert_file, listener.tls_key_file, listener.tls_ca_file, crl)
    for which, sentence in mistakes(*files, listener.tls_ciphers):
        yield (setting_of(which),), sentence
    for name, entry in listener.tls_sni.items():
        if not _is_name(name):
            yield ("tls_sni", name), 'is not a host name; expected for example [tls_sni."db.example.com"]'
        for which, sentence in mistakes(entry.cert_file, entry.key_file):
            yield ("tls_sni", name, f"{which}_file"), sentence


def setting_of(which: str) -> str:
    """The setting of a listener that names one of its files."""
    return "tls_ciphers" if which == "ciphers" else f"tls_{which}_file"


def _is_name(name: str) -> bool:
    steps = name.removeprefix("*.").split(".")
    return name.isascii() and all(step and step.replace("-", "").replace("_", "").isalnum() for step in steps)


def files_of(listener: "ListenerSettings") -> ListenerFiles | None:
    """What the TLS of a listener is made of; None where it has none."""
    if listener.tls_mode == "disable" or listener.address.path is not None:
        return None
    return ListenerFiles(
        listener.tls_cert_file or "",
        listener.tls_key_file or "",
        listener.tls_ca_file,
        listener.tls_crl_file,
        listener.tls_mode == "verify-ca",
        listener.tls_min_version,
        listener.tls_ciphers,
        listener.protocol == "postgres",
        tuple((name, entry.cert_file, entry.key_file) for name, entry in listener.tls_sni.items()),
    )
