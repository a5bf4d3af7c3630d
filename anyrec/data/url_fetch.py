"""Fetches files over HTTP: http and https only, with few redirects, and with a limit of time and size."""

from __future__ import annotations

import urllib.request
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection

from anyrec.core.deadline import Deadline

MOST_REDIRECTS = 5


class FetchError(Exception):
    """The file cannot be fetched. The message says why."""


def fetch(url: str, most_bytes: int, seconds: float) -> bytes:
    """Return the body of an http or https URL.

    Args:
        url: Up to `MOST_REDIRECTS` redirects are followed, to http and https only. Proxies of the environment are used.
        most_bytes: The largest body.
        seconds: The limit for the whole transfer, redirects included.

    Raises:
        FetchError: If there is no answer in time, the answer is malformed or an error, or the body is larger.
    """
    with Deadline(seconds) as deadline:
        try:
            with _opener(deadline).open(url, timeout=deadline.left()) as reply:
                data = reply.read(most_bytes + 1)
                left_over = reply.length if len(data) <= most_bytes else 0
            deadline.left()
        except TimeoutError:
            raise FetchError(f"it took more than {seconds:g} s") from None
        except (OSError, ValueError, HTTPException) as error:  # a malformed answer is an HTTPException or a ValueError
            late = deadline.over()
            raise FetchError(
                f"it took more than {seconds:g} s" if late else str(error) or type(error).__name__
            ) from None
    if left_over:
        raise FetchError("the answer ends early")
    if len(data) > most_bytes:
        raise FetchError(f"more than {most_bytes:,} bytes")
    return data


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MOST_REDIRECTS


def _opener(deadline: Deadline) -> urllib.request.OpenerDirector:
    """Return an opener of http and https alone, whose connections end at the deadline."""

    def watched(kind: type[HTTPConnection]) -> type[HTTPConnection]:
        class Connection(kind):
            def connect(self) -> None:
                self.timeout = deadline.left()
                super().connect()
                deadline.watch(self.sock)

        return Connection

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> HTTPResponse:
            return self.do_open(watched(HTTPConnection), req)

    class Secure(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> HTTPResponse:
            return self.do_open(watched(HTTPSConnection), req)

    return web_opener(Plain(), Secure())


def web_opener(plain: urllib.request.HTTPHandler, secure: urllib.request.HTTPSHandler) -> urllib.request.OpenerDirector:
    """Return an opener of http and https alone, by which no answer can redirect to files of this machine.

    Args:
        plain: Handler of http.
        secure: Handler of https.
    """
    opener = urllib.request.OpenerDirector()
    handlers = [urllib.request.ProxyHandler(), urllib.request.UnknownHandler(), plain, secure, _Redirects()]
    for handler in [*handlers, urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor()]:
        opener.add_handler(handler)
    return opener
