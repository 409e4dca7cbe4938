"""Which requests the demo page answers: those of the page itself, of a bounded size; none of other sites' pages."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 20_000_000  # of an upload
_FORM_BYTES = 100_000  # around it
# what Gradio offers beside what the page uses: other servers' files, its own editor and recorder, its statistics
_CLOSED = (
    "proxy=", "process_recording", "vibe", "runs", "run-history", "component_server", "custom_component", "deep_link",
    "monitoring",
)  # fmt: skip


class Guard:
    """ASGI middleware.

    A page of another site can send requests to an address of this machine, under its own name where it lets that name
    point here (DNS rebinding). So `Host` must be a name of this machine or an address, a loopback one where the page is
    served on the loopback, and `Origin` the same as `Host`.

    Args:
        app: the page's.
        host: the address that it is served at.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._names = {"localhost", host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
        self._loopback_only = host == "localhost" or _is_address(host, loopback=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        from starlette.datastructures import Headers
        from starlette.responses import PlainTextResponse

        headers = Headers(scope=scope)
        path = scope["path"].removeprefix("/gradio_api").lstrip("/")
        if not self._is_mine(headers.getlist("host"), headers.getlist("origin")):
            await PlainTextResponse("this page answers requests to its own address only", 403)(scope, receive, send)
        elif path.startswith(_CLOSED):
            await PlainTextResponse("not found", 404)(scope, receive, send)
        elif not _is_small(headers.get("content-length", "0")):
            await PlainTextResponse(f"files of up to {MOST_BYTES // 10**6} MB", 413)(scope, receive, send)
        else:
            await self._app(scope, _bounded(receive), send)

    def _is_mine(self, hosts: list[str], origins: list[str]) -> bool:
        try:
            if len(hosts) != 1 or any(urlsplit(origin).netloc.lower() != hosts[0].lower() for origin in origins):
                return False
            name = urlsplit(f"//{hosts[0]}").hostname or ""
        except ValueError:
            return False
        return name in self._names or _is_address(name, loopback=self._loopback_only)


def _is_address(name: str, *, loopback: bool) -> bool:
    """Whether it is a number: a name that points here can be anybody's, an address is this machine's."""
    try:
        return ipaddress.ip_address(name).is_loopback or not loopback
    except ValueError:
        return False


def _is_small(length: str) -> bool:
    return length.isdecimal() and int(length) <= MOST_BYTES + _FORM_BYTES


def _bounded(receive: Receive) -> Receive:
    """The request, cut off where it is too long: its length need not be what it says, or be said at all."""
    taken = 0

    async def receive_bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        return message if taken <= MOST_BYTES + _FORM_BYTES else {"type": "http.disconnect"}

    return receive_bounded
