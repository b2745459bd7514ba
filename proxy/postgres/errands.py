"""What is sent to a server on our own account, and what its answer means where it is no good."""

from proxy.errors import BackendError, RemoteProtocolError
from proxy.postgres.messages import CANCEL_CODE, SSL_REQUEST
from proxy.steps import Conversation, StartTls


def cancel_request(pid: int, secret: bytes, tls: bool, direct: bool) -> Conversation[None]:
    """Send a CancelRequest, under TLS where the session is, and wait for the end of the connection."""
    if direct:
        yield StartTls()
    elif tls:
        answer: bytes = yield SSL_REQUEST
        if answer != b"S":
            raise RemoteProtocolError("the server refuses TLS to a cancel request")
        yield StartTls()
    body = CANCEL_CODE.to_bytes(4, "big") + pid.to_bytes(4, "big") + secret
    send = (len(body) + 4).to_bytes(4, "big") + body
    while True:
        yield send
        send = b""


def failure(what: str, errors: list[dict[str, str]], otherwise: str) -> BackendError:
    """The error to raise where ``what`` was refused; ``otherwise`` stands in for the server's words."""
    fields = errors[0] if errors else {}
    return BackendError(f"{what}: {fields.get('M', '') if errors else otherwise}", fields.get("C", "XX000"))
