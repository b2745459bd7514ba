"""``[listeners.<name>]``: where clients connect, and how they prove who they are. Opens nothing."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, model_validator

from proxy.settings.auth import AuthSettings
from proxy.settings.auth_checks import auth_mistakes
from proxy.settings.knobs import ListenAddress, Number, Permissions, Seconds, knob
from proxy.settings.listener_tls import SniSettings, tls_mistakes
from proxy.settings.mistakes import Mistake, collect
from proxy.settings.sockets import SocketSettings


def _built(value: Any) -> Any:
    if value == "redis":
        raise ValueError('"redis" is not built yet; use "postgres", or "tcp", which passes on any bytes')
    return value


# pydantic puts the settings of the last base first.
class ListenerSettings(AuthSettings, SocketSettings):
    """One place where clients connect."""

    protocol: Annotated[Literal["postgres", "tcp"], BeforeValidator(_built)] = knob(
        "postgres",
        "What clients speak. `tcp` passes on bytes unread: nobody proves who it is, and each client has a "
        "session of `pool` for as long as it is connected.",
    )
    address: ListenAddress = knob(
        "127.0.0.1:6432", '`"host:port"`, `"[::1]:6432"` or `"unix:/run/penstock/.s.PGSQL.6432"`.'
    )
    auth: Literal["scram-sha-256", "md5", "password", "trust", "cert", "peer"] = knob(
        "scram-sha-256",
        "How a client proves who it is. `trust` asks for no proof and is refused unless the address is "
        "loopback or a "
        "Unix socket. `cert`: by the certificate that it shows under TLS; `peer`: by the operating system, "
        "on a Unix socket.",
    )
    max_clients: Number = knob(1000, "Connections accepted at once; one more is refused at login.", ge=1)
    login_timeout: Seconds = knob("15s", "From accept to logged in, TLS included.")
    tls_mode: Literal["disable", "allow", "require", "verify-ca"] = knob(
        "disable",
        "`allow` leaves TLS to the client, `require` refuses clients without, `verify-ca` refuses "
        "clients without a "
        "certificate that `tls_ca_file` has signed. With the protocol `tcp`, TLS begins at once.",
    )
    tls_cert_file: str | None = knob(None, "The certificate and its chain, PEM.")
    tls_key_file: str | None = knob(None, "The private key, PEM, without a passphrase.")
    tls_ca_file: str | None = knob(None, "Certificates that clients' certificates are verified against, PEM.")
    tls_crl_file: str | None = knob(
        None,
        "Lists of revoked certificates, PEM: one of each issuer up to the root, none of them expired. "
        "Clients whose certificate is in it are refused.",
    )
    tls_min_version: Literal["1.2", "1.3"] = knob("1.2", "The oldest version of TLS that is spoken.")
    tls_ciphers: str | None = knob(
        None, "The ciphers for TLS 1.2, as OpenSSL lists them. Without it, OpenSSL's own choice."
    )
    tls_sni: dict[str, SniSettings] = knob(
        {},
        "Certificates by the name that a client asks for (SNI). Whoever asks for none of them is shown "
        "`tls_cert_file`.",
    )
    unix_socket_mode: Permissions = knob("0777", "The permissions of a Unix socket, in octal.")
    max_message_bytes: Number = knob(
        2**30 - 1, "The longest message accepted from a client.", ge=8192, le=2**30 - 1
    )
    proxy_protocol: Literal["off", "require"] = knob(
        "off",
        "`require`: each connection begins with a header of the PROXY protocol, version 1 or 2, which says "
        "where it comes from. Only whoever sends it may be able to connect: it is believed.",
    )
    pool: str | None = knob(
        None,
        "The pool for databases that no pool is named after. Without it, and without a pool `*`, they "
        "are unknown. With the protocol `tcp`: the pool of all clients.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        collect(self._mistakes())
        return self

    def _mistakes(self) -> Iterator[Mistake]:
        yield from self._file_mistakes()
        yield from auth_mistakes(self)
        if self.protocol == "tcp":
            yield from self._tcp_mistakes()
        if self.auth == "trust" and not self.address.local:
            yield (
                ("auth",),
                '"trust" lets everybody in, so it needs a loopback address or a Unix socket; use '
                '"scram-sha-256", '
                'or address = "127.0.0.1:6432"',
            )
        yield from tls_mistakes(self)

    def _tcp_mistakes(self) -> Iterator[Mistake]:
        if self.pool is None:
            yield ("pool",), 'is required when protocol is "tcp": which pool do the clients get sessions of?'
        if self.tls_mode == "allow":
            yield (
                ("tls_mode",),
                '"allow" is for PostgreSQL, whose clients ask for TLS: with protocol "tcp" it is '
                '"require" or "disable"',
            )
        if "auth" in self.model_fields_set:
            yield ("auth",), 'nobody proves who it is when protocol is "tcp": leave it out'
