"""The only place that opens a user's URL: public addresses alone, bounded in bytes and seconds, whatever the URL says.

What an operator names himself may lie anywhere, and is bounded all the same (`ask`).

A name is looked up once, every address it has must be public, and that very address is dialled: a name that changes its
mind between the look and the call gains nothing. Each redirect begins anew.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from cinecanvas import __version__
from cinecanvas.errors import BadMedia, BadRequest, Unsupported
from cinecanvas.media.assets import Asset, Store
from cinecanvas.media.destination import told
from cinecanvas.media.intake import take

_MOST_URL = 4000  # characters
_MOST_REDIRECTS = 4
_CONNECT = 10.0  # s
_PORTS = {"http": 80, "https": 443}
_POSSIBLE = "http:// and https:// URLs are opened, such as https://example.org/cat.jpg"
_INSTEAD = "Save it to a file and give that"
_HOST = re.compile(r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?\.?")
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")  # of a host beside this one
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16"),
            *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
            "168.63.129.16/32",  # Azure's host, public by number alone
            *("::/3", "4000::/2", "8000::/1"),  # all but 2000::/3: loopback, mapped, NAT64, local, multicast
            *("2001::/23", "2001:db8::/32", "2002::/16", "3ffe::/16", "3fff::/20", "2620:4f:8000::/48"),
        ),
    )
)


def addresses(host: str, port: int) -> Sequence[str]:
    """Every address of a name, as the system finds them."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def public(address: str) -> bool:
    """Whether an address belongs to the public internet; Python's own tables differ by release."""
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        return False
    return number.is_global and not any(number in network for network in _NOT_PUBLIC)


@dataclass(frozen=True)
class Web:
    """The world as `fetch` meets it, and how much of it is let in; tests and operators give another, users never do."""

    resolve: Callable[[str, int], Sequence[str]] = addresses
    allowed: Callable[[str], bool] = public
    trusted: frozenset[str] = frozenset()  # names that an operator lets in wherever they lead
    trust: Callable[[], ssl.SSLContext] | None = None  # None: the certificate authorities of certifi
    most_bytes: int = 256 << 20
    seconds: float = 120.0  # for everything together


def fetch(store: Store, url: str, *, web: Web = Web(), keep: Callable[[Store, Path], Asset] | None = None) -> Asset:
    """Keep the picture or film behind an http(s) URL in the store; what fails leaves nothing behind.

    keep: how what came is looked at and kept; a server gives its warden's way, for it loads no decoder itself.
    """
    place = _place(url)
    with told("into the store"):  # its own disk: another may be too small for a film
        aside = tempfile.TemporaryDirectory(prefix=".fetch-", dir=None if store.root is None else str(store.root))
    with aside as folder:
        file = Path(folder, f"The answer of {place.host.replace(':', '-')}")  # so that what is refused has a name
        with file.open("wb") as out, closing(_body(place, web)) as pieces:
            for piece in pieces:
                with told("into the store"):
                    out.write(piece)
        return (keep or take)(store, file)


def check_url(url: str, *, web: Web = Web()) -> None:
    """Refuse at once what `fetch` would refuse without asking anybody."""
    place = _place(url)
    if _is_number(place.host) and place.host not in web.trusted and not web.allowed(place.host):
        raise _not_public(place.host)


def post(url: str, body: bytes, headers: Mapping[str, str], *, web: Web = Web()) -> int:
    """Send a body to an http(s) URL and return the status that is answered; no redirect is followed.

    The bytes of the answer are not read. A whole `Web.seconds` may pass, so give a Web with few.
    """
    with _answer(_place(url), web, time.monotonic() + web.seconds, body=body, headers=headers) as (status, _, _):
        return status


def ask(url: str, body: bytes, headers: Mapping[str, str], *, called: str, web: Web) -> bytes:
    """Send a body to a service that the operator of this machine named, wherever it is; the bytes that it answers.

    No redirect is followed, and whatever is not answered with 200 is BadMedia. Refusals say what the service is
    `called`, never where it is. A whole `Web.seconds` may pass, and no more than `Web.most_bytes` are read.
    """
    place = _place(url, own=True)._replace(called=called)
    anywhere = replace(web, allowed=lambda address: True)
    with _answer(place, anywhere, time.monotonic() + web.seconds, body=body, headers=headers) as (
        status,
        known,
        pieces,
    ):
        _check(called, status, known, most=web.most_bytes)
        return b"".join(_bounded(called, pieces, most=web.most_bytes))


def check_own(url: str) -> None:
    """Refuse at once what `ask` could not send to."""
    _place(url, own=True)


class _Place(NamedTuple):
    """A URL in its parts, as they are sent: nothing reads it a second time in another way."""

    scheme: str
    host: str
    port: int
    target: str
    called: str  # what refusals call it


def _place(url: str, *, own: bool = False) -> _Place:
    """The parts of a URL; whatever two programs could read in two ways is refused. own: an operator's, who may name
    hosts of his own net."""
    if len(url) > _MOST_URL or any(c == "\\" or c.isspace() or not c.isprintable() for c in url):
        raise BadRequest("A URL without end or with spaces or backslashes was given", _POSSIBLE)
    try:
        parts = urlsplit(url)
        named, port = parts.hostname or "", parts.port
        host = named if ":" in named else named.encode("idna").decode()  # full-width digits become digits
    except ValueError:
        raise BadRequest("The URL cannot be read", _POSSIBLE) from None
    if parts.scheme not in _PORTS:
        raise BadRequest(f"A URL that begins with {parts.scheme[:20]}: was given", _POSSIBLE, _INSTEAD)
    if "@" in parts.netloc:
        raise BadRequest("A URL with a name or password in it was given", "It is opened without them", _INSTEAD)
    if not _HOST.fullmatch(host) and not _is_number(host) and not (own and _NAME.fullmatch(host)):
        raise BadRequest("The URL names no host on the public internet", _POSSIBLE, _INSTEAD)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Place(parts.scheme, host, port or _PORTS[parts.scheme], quote(target, safe="%/?:@!$&'()*+,;=~[]"), host)


def _is_number(host: str) -> bool:
    """An address in full, 203.0.113.9 or 2001:db8::1, and none of the short, hexadecimal, octal and scoped ways."""
    try:
        return bool(ipaddress.ip_address(host)) and "%" not in host
    except ValueError:
        return False


def _body(place: _Place, web: Web) -> Generator[bytes, None, None]:
    """The bytes of the answer, piece by piece, through at most a few redirects."""
    until = time.monotonic() + web.seconds
    for _ in range(_MOST_REDIRECTS + 1):
        with _answer(place, web, until) as (status, headers, pieces):
            if status not in (301, 302, 303, 307, 308):
                _check(place.host, status, headers, most=web.most_bytes)
                yield from _bounded(place.host, pieces, most=web.most_bytes)
                return
        place = _next(place, headers.get("location", ""))
    raise BadMedia(f"{place.host} leads on and on", f"At most {_MOST_REDIRECTS} redirects are followed", _INSTEAD)


def _next(place: _Place, location: str) -> _Place:
    """Where a redirect leads, looked at as strictly as what the user gave."""
    host = f"[{place.host}]" if ":" in place.host else place.host
    there = _place(urljoin(f"{place.scheme}://{host}:{place.port}{place.target}", location))
    if (place.scheme, there.scheme) == ("https", "http"):
        raise BadMedia(f"{place.host} leads from https to http", "A redirect may not give up TLS", _INSTEAD)
    return there


def _check(host: str, status: int, headers: dict[str, str], *, most: int) -> None:
    """That an answer is one, in plain bytes, and not too many by its own account."""
    if status != 200:
        raise BadMedia(f"{host} answered {status}", "A picture or film comes with 200", "Check the URL")
    packed = headers.get("content-encoding", "identity").lower()
    if packed != "identity":  # what is small when packed may be endless
        raise BadMedia(f"{host} sent its answer packed", "Plain bytes were asked and are read", _INSTEAD)
    if int(headers.get("content-length", 0)) > most:
        raise _too_much(host, most)


def _bounded(host: str, pieces: Iterator[bytes], *, most: int) -> Iterator[bytes]:
    count = 0
    for piece in pieces:
        count += len(piece)
        if count > most:
            raise _too_much(host, most)
        yield piece


@contextmanager
def _answer(
    place: _Place, web: Web, until: float, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Iterator[tuple[int, dict[str, str], Iterator[bytes]]]:
    """Status, headers and body of what one GET, or a POST of a body, is answered.

    No cookie, no credential and no proxy of this machine takes part in it.
    """
    try:
        import httpcore
    except ImportError:
        raise Unsupported(
            "A URL was given", "Opening it needs httpcore", "pip install 'cinecanvas[web]', or give a file"
        ) from None
    asked: dict[bytes | str, bytes | str] = {
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "User-Agent": f"cinecanvas/{__version__}",
    }
    asked.update(headers or {})
    method = "GET" if body is None else "POST"
    origin = httpcore.Origin(place.scheme.encode(), place.host.encode(), place.port)
    url = httpcore.URL(scheme=origin.scheme, host=origin.host, port=origin.port, target=place.target.encode())
    try:
        line = _Line(_dialled(place, web, until), until, place.called)
        with (
            closing(httpcore.HTTP11Connection(origin, line)) as connection,  # type: ignore[arg-type]
            connection.stream(method, url, headers=asked, content=body) as reply,
        ):
            known = {name.decode("latin-1").lower(): text.decode("latin-1") for name, text in reply.headers}
            yield reply.status, known, reply.iter_stream()
    except httpcore.TimeoutException:
        raise _too_slow(place.called) from None
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        if isinstance(error.__cause__, ssl.SSLCertVerificationError):
            raise BadMedia(f"{place.called} does not prove that it is {place.called}", do=_INSTEAD) from None
        raise BadMedia(f"{place.called} could not be reached, or broke off", do="Check the URL, or try again") from None


def _dialled(place: _Place, web: Web, until: float) -> Any:
    """A connection to one of the addresses that were looked at, over TLS where the URL says so."""
    import httpcore

    try:
        found = list(dict.fromkeys(web.resolve(place.host, place.port)))
    except OSError:
        known = f"No host {place.host} is known" if place.called == place.host else f"{place.called} has no known host"
        raise BadMedia(known, do="Check the URL") from None
    if not found or not (place.host in web.trusted or all(web.allowed(address) for address in found)):
        raise _not_public(place.host)
    for address in found:
        try:
            wait = min(_CONNECT, _left(until, place.called))
            stream = httpcore.SyncBackend().connect_tcp(address, place.port, timeout=wait)
            break
        except (httpcore.ConnectError, httpcore.ConnectTimeout):
            if address == found[-1]:
                raise
    if place.scheme == "http":
        return stream
    trust = web.trust() if web.trust else httpcore.default_ssl_context()
    return stream.start_tls(trust, server_hostname=place.host, timeout=_left(until, place.called))


class _Line:
    """A connection on which every wait ends when the whole is to end: drops that come in time do not add up."""

    def __init__(self, stream: Any, until: float, host: str) -> None:
        self._stream, self._until, self._host = stream, until, host

    def read(self, most: int, timeout: float | None = None) -> bytes:
        return bytes(self._stream.read(most, _left(self._until, self._host)))

    def write(self, data: bytes, timeout: float | None = None) -> None:
        self._stream.write(data, _left(self._until, self._host))

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(until: float, host: str) -> float:
    """Seconds that are left, or the refusal."""
    left = until - time.monotonic()
    if left <= 0:
        raise _too_slow(host)
    return left


def _not_public(host: str) -> BadRequest:
    return BadRequest(f"{host} is not on the public internet", "Only public addresses are opened", _INSTEAD)


def _too_slow(host: str) -> BadMedia:
    return BadMedia(f"{host} was too slow", do=f"Try again, or {_INSTEAD[0].lower()}{_INSTEAD[1:]}")


def _too_much(host: str, most: int) -> BadMedia:
    return BadMedia(f"{host} sends too much", f"At most {most >> 20} MB are taken from a URL", _INSTEAD)
