"""Rules for the addresses that may be requested and that may see the login."""

import ipaddress
import socket
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import quote, unquote_plus, urljoin, urlsplit

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from flows.errors import ConfigurationError
from flows.redaction import without_queries
from flows.source import Source

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

PORTS = {"http": 80, "https": 443}
LEGAL_MARKS = "!#$%&'()*+,/:;=?@[]~"


def check(url: str, source: Source, public_hosts: tuple[str, ...] = ()) -> None:
    """Refuse an address that the source does not allow; `public_hosts` get no login.

    Raises:
        ConfigurationError: its host is not the source's or one it allows, or no source may request
            it (`check_any`).
    """
    parts = _parts(url)
    if _is_listed(parts, public_hosts):
        check_any(url, has_login=True)
        return
    if _place(parts) != _place(_parts(source.base_url)) and not _is_listed(parts, source.hosts):
        raise ConfigurationError(
            f"{without_queries(url)} is not on the host of source {source.name!r} "
            f"({source.base_url}): its responses may not lead there. If this is intended, add "
            f"{parts.host!r} to the source's `hosts`, which get the login; for downloads, to the "
            "job's `hosts`, which don't."
        )
    check_any(url, has_login=bool(source.logins))


def is_listed(url: str, hosts: tuple[str, ...]) -> bool:
    """Whether the address's host is in `hosts`; an entry without a port allows all ports."""
    return bool(hosts) and _is_listed(_parts(url), hosts)


def check_any(url: str, has_login: bool) -> None:
    """Refuse an address that no source may request.

    Raises:
        ConfigurationError: it is not an HTTP address, has a user or a password in it, is link-local
            (RFC 3927: cloud metadata lives there), or would send a login in clear text.
    """
    parts = _parts(url)
    if parts.auth is not None:
        raise ConfigurationError(
            f"The address of {parts.host} has a user or a password in it, which would be logged "
            "and stored. Remove it, and declare a login (flows.extract.auth)."
        )
    found = _addresses(url, parts)
    if any(address.is_link_local for address in found):
        raise ConfigurationError(
            f"{without_queries(url)} is a link-local address: a source may not use it. Correct the "
            "source's address."
        )
    is_local = bool(found) and all(address.is_loopback for address in found)
    if has_login and parts.scheme == "http" and not is_local:
        raise ConfigurationError(
            f"{without_queries(url)} would send a login in clear text. Use https."
        )


def resolve_link(base: str, link: str) -> str:
    """A link's absolute address; the link may be relative to `base` (RFC 3986, 5).

    Raises:
        ConfigurationError: it is not an address.
    """
    try:
        return urljoin(base, link)
    except ValueError as error:
        raise _no_address(link) from error


def from_header(value: str) -> str:
    """The address in a header, whose non-ASCII bytes were read as Latin-1."""
    return quote(value, safe=LEGAL_MARKS, encoding="latin-1")


def with_param(url: str, name: str, value: str) -> str:
    """The URL with a query parameter set; spaces become %20."""
    parts = urlsplit(without_params(url, lambda known, _: known == name))
    pair = f"{quote(name, safe='')}={quote(value, safe='')}"
    return parts._replace(query="&".join(filter(None, [parts.query, pair]))).geturl()


def without_params(url: str, is_dropped: Callable[[str, str], bool]) -> str:
    """The URL without the query parameters for which `is_dropped(name, value)` is true."""
    parts = urlsplit(url)
    pairs = parts.query.split("&")
    kept = [pair for pair in pairs if not is_dropped(*map(unquote_plus, _split_pair(pair)))]
    return url if kept == pairs else parts._replace(query="&".join(kept)).geturl()


def _split_pair(pair: str) -> tuple[str, str]:
    name, _, value = pair.partition("=")
    return name, value


@lru_cache(maxsize=256)
def _parts(url: str) -> Url:
    """The address as parsed by urllib3, which sends the request."""
    try:
        parts = parse_url(url)
    except LocationParseError:
        parts = Url()
    if parts.scheme not in PORTS or not parts.host or parts.port == 0:
        raise _no_address(url)
    return parts


def _no_address(url: str) -> ConfigurationError:
    return ConfigurationError(
        f"{without_queries(url)} can't be requested: it is not an HTTP address. "
        "Correct the source's address."
    )


def _place(parts: Url) -> tuple[str, int | None]:
    """Host and port; 80 and 443 count as equal, since APIs link from one to the other."""
    is_default = parts.port in {None, *PORTS.values()}
    return _host(parts), None if is_default else parts.port


def _host(parts: Url) -> str:
    return str(parts.host).rstrip(".")


def _is_listed(parts: Url, hosts: tuple[str, ...]) -> bool:
    """Whether the address's host is in `hosts`; an entry without a port allows all ports."""
    listed = [_parts(f"https://{host}") for host in hosts]
    return any(
        _host(parts) == _host(one) if one.port is None else _place(parts) == _place(one)
        for one in listed
    )


def _addresses(url: str, parts: Url) -> tuple[IpAddress, ...]:
    """The IP addresses of its host; none if it can't be resolved, then the request will fail.

    Raises:
        ConfigurationError: it is not a valid host name.
    """
    try:
        return _resolved(_host(parts).strip("[]"))
    except UnicodeError as error:
        raise _no_address(url) from error
    except OSError:
        return ()


@lru_cache(maxsize=64)
def _resolved(host: str) -> tuple[IpAddress, ...]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(_ip_address(str(entry[4][0]).split("%")[0]) for entry in found)


def _ip_address(text: str) -> IpAddress:
    """The address; for an IPv4-mapped IPv6 address, the IPv4 one (RFC 4291, 2.5.5.2)."""
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address
