import os
import socket

from proxy.relay.proxy_header import Origin, caller_of
from proxy.relay.sockets import peer_uid


def test_a_caller_over_tcp_has_an_address_and_over_a_unix_socket_none() -> None:
    far = caller_of(Origin(socket.AF_INET, "192.0.2.7", 4711, "192.0.2.1", 6432), -1)
    assert (far.address, far.target, far.uid) == ("192.0.2.7", "192.0.2.1", -1)
    near = caller_of(Origin(socket.AF_UNIX, "/run/x"), 12)
    assert (near.address, near.target, near.uid) == ("", "", 12)


def test_the_kernel_tells_who_is_at_the_other_end_of_a_unix_socket_only() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_uid(ours) == os.getuid()
    with socket.socket() as plain:
        assert peer_uid(plain) == -1
