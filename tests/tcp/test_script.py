"""A script is answered to the byte, or it has failed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BackendError, PingFailed
from proxy.tcp.script import Script


def run(script: Script, pieces: list[bytes]) -> bool:
    """Play the server; returns whether the script has ended."""
    talk = script.ping()
    assert next(talk) == script.send
    try:
        for piece in pieces:
            assert talk.send(piece) == b""
    except StopIteration:
        return True
    return False


@given(st.binary(min_size=1, max_size=20), st.integers(1, 20))
def test_the_answer_may_come_in_any_pieces(expect: bytes, size: int) -> None:
    pieces = [expect[start : start + size] for start in range(0, len(expect), size)]
    assert run(Script(b"?", expect), pieces)
    assert not run(Script(b"?", expect), pieces[:-1])


@pytest.mark.parametrize("answer", [b"x", b"+OK\r\n+OK\r\n", b"+OK\r\r", b"rest+OK\r\n"])
def test_anything_else_is_a_failure(answer: bytes) -> None:
    script = Script(b"?", b"+OK\r\n")
    with pytest.raises(PingFailed, match="ping_script"):
        run(script, [answer])
    talk = script.reset()
    next(talk)
    with pytest.raises(BackendError, match="reset_script"):
        talk.send(answer)
