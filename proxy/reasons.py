"""Why things end: one enum per kind of end, which reaches log, metric and status page unchanged."""

from enum import StrEnum


class DropReason(StrEnum):
    """Why a session left its pool (``penstock_pool_drops_total{reason}``)."""

    IDLE_TIMEOUT = "idle_timeout"
    MAX_LIFETIME = "max_lifetime"
    PING_FAILED = "ping_failed"
    RESET_FAILED = "reset_failed"
    PREPARE_FAILED = "prepare_failed"
    RECOVER_FAILED = "recover_failed"
    UNCERTAIN = "uncertain"
    SPENT = "spent"
    REPLICATION = "replication"
    SERVER_CLOSED = "server_closed"
    SERVER_FATAL = "server_fatal"
    PROTOCOL_ERROR = "protocol_error"
    FORCED = "forced"
    MAX_IDLE = "max_idle"
    SHRUNK = "shrunk"
    GENERATION = "generation"
    BEGIN_FAILED = "begin_failed"
    CLOSED = "closed"
    REPLACED = "replaced"
    DRAIN = "drain"
    ROLE = "role"
    MOVED = "moved"
    ABANDONED = "abandoned"
    QUERY_TIMEOUT = "query_timeout"


class CloseReason(StrEnum):
    """Why a client's connection ended (the ``reason`` of ``client_closed`` in the log)."""

    CLIENT_LEFT = "client_left"
    CLIENT_GONE = "client_gone"
    PROTOCOL_ERROR = "protocol_error"
    IDLE_TRANSACTION = "idle_transaction_timeout"
    TRANSACTION = "transaction_timeout"
    CLIENT_IDLE = "client_idle_timeout"
    QUERY = "query_timeout"
    SESSION_LOST = "session_lost"
    LISTEN_LOST = "listen_lost"
    LISTEN_BACKLOG = "listen_backlog"
    SERVER_LEFT = "server_left"
    REFUSED = "refused"
    DRAIN = "drain"
    DRAIN_TIMEOUT = "drain_timeout"


class RefusalReason(StrEnum):
    """Why a listener refused a client (``penstock_client_refusals_total{reason}``)."""

    MAX_CLIENTS = "max_clients"
    DESCRIPTORS = "descriptors"
    DRAIN = "drain"
    AUTH = "auth"
    DATABASE = "database"
    STARTUP = "startup"
    PROTOCOL = "protocol_error"
    TLS = "tls"
    LOGIN_TIMEOUT = "login_timeout"
    POOL = "pool"


class TimeoutReason(StrEnum):
    """What a client had too much time for (``penstock_pool_timeouts_total{reason}``)."""

    QUERY = "query_timeout"
    TRANSACTION = "transaction_timeout"
    IDLE_TRANSACTION = "idle_transaction_timeout"
    CLIENT_IDLE = "client_idle_timeout"


class TlsFailure(StrEnum):
    """Why a TLS handshake with a client failed (``penstock_tls_failures_total{reason}``)."""

    VERSION = "version"
    CIPHER = "cipher"
    CERTIFICATE = "certificate"
    NO_CERTIFICATE = "no_certificate"
    REJECTED = "rejected"
    ALPN = "alpn"
    NOT_TLS = "not_tls"
    TIMEOUT = "timeout"
    GONE = "gone"
    OTHER = "other"


class PinReason(StrEnum):
    """Why a client keeps its session beyond a unit of work (``penstock_pool_pins_total{reason}``)."""

    ADVISORY_LOCKS = "advisory_locks"
    TEMP_TABLES = "temp_tables"
    HOLD_CURSORS = "hold_cursors"
    LOAD = "load"
    SQL_PREPARE = "sql_prepare"
    LISTEN = "listen"
    SETTINGS = "settings"


class PinOutcome(StrEnum):
    """What came of state that cannot follow its client (``penstock_pool_pins_total{outcome}``)."""

    PINNED = "pinned"
    REFUSED = "refused"
    WOULD_PIN = "would_pin"
