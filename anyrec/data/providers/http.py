"""Files of web servers."""

from __future__ import annotations

import base64
import hashlib
import netrc
import urllib.request
from http.client import HTTPException, HTTPResponse
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote

from anyrec.core.config.sources import TableConfig
from anyrec.core.errors import DataError, Fault
from anyrec.core.secrets import Address, parse_address
from anyrec.data.sources.contract import Access, Provider, Rows, SourceFile
from anyrec.data.sources.copies import Copy
from anyrec.data.sources.decode import decode
from anyrec.data.sources.open_table import without_secrets
from anyrec.data.url_fetch import web_opener

SECONDS = 60
"""Time limit of connecting, and of each wait for more."""
CHUNK = 1 << 20
SAFE = "/%:@!$&'()*+,;=~?[]-._"


class Http(Provider):
    """Files of web servers: https://example.org/log.csv.gz. Each is downloaded once into a temporary file."""

    type = "http"
    schemes = "http https"
    remote = True

    def open(self, table: TableConfig, access: Access) -> Rows:
        """Download one or more files, whose rows follow one another."""
        return decode(
            [_download(access.address(place), without_secrets(place)) for place in table.places], table.format, access
        )


def _download(address: str, name: str) -> SourceFile:
    """Return a file of a server. Raises DataError if that fails. name: Its address without secrets."""
    parts = parse_address(address)
    try:
        request = urllib.request.Request(f"{parts.scheme}://{quote(parts.rest.partition('#')[0], safe=SAFE)}")
        request.add_header("User-Agent", "anyrec")
        user = _user_of(parts)
        if user:  # not sent to another server that the first redirects to
            request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
        opener = web_opener(urllib.request.HTTPHandler(), urllib.request.HTTPSHandler())
        with opener.open(request, timeout=SECONDS) as answer:
            download, version = _saved(answer, name)
    except HTTPError as error:
        error.close()
        raise _refused(error.code, error.reason, name) from None
    except URLError as error:
        raise _unreachable(str(error.reason), name) from None
    except (OSError, ValueError, HTTPException) as error:  # a malformed answer is an HTTPException or a ValueError
        raise _unreachable(str(error) or type(error).__name__, name) from None
    return SourceFile(name, download.open, version)


def _saved(answer: HTTPResponse, name: str) -> tuple[Copy, str]:
    """Return the body of an answer as a temporary file, and its version."""
    download, found = Copy(), hashlib.sha256()
    with download.writing() as file:
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            found.update(chunk)
    if answer.length:
        raise DataError(Fault(name, "the download ended early.", "Try again.", "unreachable"))
    tag = answer.headers.get("ETag", "").removeprefix("W/").strip('"')
    return download, f"etag {tag}" if tag else f"sha256 {found.hexdigest()}"


def _user_of(parts: Address) -> str:
    """Return user and password of an address, or those that ~/.netrc has for its server; empty if there are none."""
    if parts.user or parts.password:
        return f"{unquote(parts.user)}:{unquote(parts.password or '')}"
    try:
        found = netrc.netrc().authenticators(parts.path.partition("/")[0].partition(":")[0])
    except (OSError, netrc.NetrcParseError):
        return ""
    return f"{found[0]}:{found[2] or ''}" if found else ""


def _refused(code: int, reason: str, name: str) -> DataError:
    if code in (401, 403, 407):
        hint = "Add the server to ~/.netrc, or write https://USER:PASSWORD@SERVER/... on the command line."
        return DataError(Fault(name, f"the server refuses access ({code} {reason}).", hint, "credentials"))
    if code in (404, 410):
        return DataError(Fault(name, f"there is no such file ({code} {reason}).", "Check the address.", "no file"))
    return DataError(Fault(name, f"the server answers with an error ({code} {reason}).", "Try again.", "unreachable"))


def _unreachable(reason: str, name: str) -> DataError:
    hint = "Check the address, and whether it can be reached from here."
    return DataError(Fault(name, f"the server cannot be reached: {reason.rstrip('.')}.", hint, "unreachable"))
