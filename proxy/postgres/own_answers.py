"""What the statements that are for Penstock itself do, and what they are answered by.

Cold, and only about their meaning: where in the stream they may stand is the business of asides.py.
"""

from typing import Final

from proxy.postgres.messages import cstring, error, message
from proxy.postgres.own import OwnStatement
from proxy.postgres.state import ClientState

_TEXT_OID: Final = 25


def check(state: ClientState, statement: OwnStatement) -> bytes:
    """The error that a statement of ours deserves, or nothing."""
    if statement.error:
        return trouble(statement)
    if state.status == 69:
        return error(
            "ERROR",
            "25P02",
            "current transaction is aborted, commands ignored until end of transaction block",
        )
    if statement.verb == "SET" and statement.value is not None:
        try:
            if statement.name == "penstock.getmode":
                state.terms.check_getmode(statement.value)
            else:
                state.terms.check_wait_timeout(statement.value)
        except ValueError as mistake:
            return error(
                "ERROR",
                "22023",
                f'invalid value for parameter "{statement.name}": {statement.value}',
                detail=str(mistake),
                hint=f"What clients may choose is set by pools.{state.terms.pool}.client_may_set.",
            )
    return b""


def run(state: ClientState, statement: OwnStatement, describe: bool) -> bytes:
    """Carry out a statement that ``check`` found right; the answer without its ReadyForQuery."""
    if statement.verb == "SET":
        state.terms_changed = True
        if statement.name == "penstock.getmode":
            state.getmode = "" if statement.value is None else state.terms.check_getmode(statement.value)
        elif statement.value is None:
            state.wait_timeout, state.wait_timeout_text = -1.0, ""
        else:
            state.wait_timeout = state.terms.check_wait_timeout(statement.value)
            state.wait_timeout_text = statement.value
        return message(b"C", cstring("SET"))
    if statement.name == "penstock.getmode":
        value = state.getmode or state.terms.getmode
    else:
        value = state.wait_timeout_text or state.terms.wait_timeout
    text = value.encode()
    row = message(b"D", b"\0\x01" + len(text).to_bytes(4, "big") + text)
    return (columns(statement) if describe else b"") + row + message(b"C", cstring("SHOW"))


def columns(statement: OwnStatement) -> bytes:
    """The RowDescription of a SHOW."""
    column = (
        cstring(statement.name) + b"\0" * 6 + _TEXT_OID.to_bytes(4, "big") + b"\xff\xff\xff\xff\xff\xff\0\0"
    )
    return message(b"T", b"\0\x01" + column)


def out_of_place() -> OwnStatement:
    """What stands for a statement of ours among others, where none may be."""
    return OwnStatement("", "", None, "a penstock setting must stand alone between two Sync messages")


def trouble(statement: OwnStatement) -> bytes:
    """What is wrong with a statement, as an error."""
    return error("ERROR", "0A000", statement.error, hint=statement.hint)
