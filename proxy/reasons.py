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
    ABANDONED = "abandoned"


class CloseReason(StrEnum):
    """Why a client's connection ended (the ``reason`` of ``client_closed`` in the log)."""

    CLIENT_LEFT = "client_left"
    CLIENT_GONE = "client_gone"
    PROTOCOL_ERROR = "protocol_error"
    IDLE_TRANSACTION = "idle_transaction_timeout"
    SESSION_LOST = "session_lost"
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
