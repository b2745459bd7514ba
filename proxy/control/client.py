"""``penstock ctl``: one command to a running daemon, and its answer as text for people.

Uses the standard library alone, so that the command starts quickly. Changes nothing by itself.
"""

import http.client
import json
import socket
from typing import Any, Final

from proxy.errors import ProxyError

_PATIENCE: Final = 70.0  # seconds: longer than the daemon takes for any command


class NotDone(ProxyError):
    """The command was not done; the message says why, in a sentence."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("penstock", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.close()
            raise


def ask(path: str, command: str, timeout: float = _PATIENCE, **said: Any) -> Any:
    """Give the daemon behind the socket at ``path`` a command, and return its answer. Raises NotDone."""
    connection = _UnixConnection(path, timeout)
    try:
        body = json.dumps(said)
        connection.request("POST", f"/v1/{command}", body, {"content-type": "application/json"})
        response = connection.getresponse()
        found = json.loads(response.read())
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotDone(
            f"no daemon listens on {path}: it does not run, or its [control] address is another one or off"
        ) from None
    except PermissionError:
        raise NotDone(f"{path} may be opened only by the user that the daemon runs as, and by root") from None
    except TimeoutError:
        raise NotDone(f"the daemon behind {path} did not answer within {timeout:g}s") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotDone(f"what listens on {path} does not answer as Penstock does: {error}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise NotDone(str(found.get("error", found)) if isinstance(found, dict) else str(found))
    return found["answer"]


def as_text(answer: Any) -> str:
    """An answer for a terminal: a sentence as it is, a table as lines, a list of tables in columns."""
    if isinstance(answer, dict):
        return "\n".join(f"{name} = {_toml(value)}" for name, value in answer.items())
    if isinstance(answer, list):
        return _columns(answer)
    return str(answer)


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _columns(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "none"
    heads = list(rows[0])
    cells = [heads, *([_cell(row.get(head)) for head in heads] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    text = str(value)
    # Names come from clients: nothing of them may move the cursor.
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
