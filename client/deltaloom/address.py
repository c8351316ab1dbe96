"""The address of Redis: a single server, a cluster, or a master behind sentinels. Parsed from one URL.

| URL                                         | address                                            |
|---------------------------------------------|----------------------------------------------------|
| `redis://user:password@host:6379/0`         | a server; `rediss://` for TLS, `unix://` a socket  |
| `redis+cluster://host:7000,host:7001`       | a cluster, by some of its nodes                    |
| `redis+sentinel://host:26379,host/name/0`   | the master of this name, by some of its sentinels  |

`rediss+cluster://` and `rediss+sentinel://` use TLS. User and password are those of the servers. The options
`?sentinel_username=…&sentinel_password=…` are for sentinels that need their own. Other options are
redis-py's.

An invalid URL is rejected here. The message has nothing of the URL except names of options, whereas errors of
libraries may show a password or a part of one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

Mode = Literal["standalone", "cluster", "sentinel"]

_PORTS: dict[Mode, int] = {"standalone": 6379, "cluster": 6379, "sentinel": 26379}
_SCHEMES = (
    "a URL that starts with redis://, rediss:// or unix://, with redis+cluster:// (or rediss+cluster://) "
    "for a cluster, or with redis+sentinel:// (or rediss+sentinel://) for a master behind sentinels"
)
_MODES: dict[str, Mode] = {"cluster": "cluster", "sentinel": "sentinel"}
_MODES_BY = {"redis": set(_MODES), "rediss": set(_MODES), "unix": set[str]()}
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
_OPTIONS = {
    *("db", "username", "password", "client_name", "protocol"),
    *("socket_timeout", "socket_connect_timeout", "socket_keepalive", "socket_read_size"),
    *("health_check_interval", "max_connections"),
}
"""Options of redis-py that a URL can express and that do not conflict with the program."""
_TLS_OPTIONS = {
    *("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_ca_data", "ssl_cert_reqs"),
    *("ssl_check_hostname", "ssl_min_version", "ssl_ciphers"),
}
_NON_CLUSTER_OPTIONS = {"retry_on_timeout"}
_NON_CLUSTER_TLS_OPTIONS = {"ssl_ca_path", "ssl_password"}
_ENCODED = (
    "a URL that writes, in user and password, # as %23, / as %2F, ? as %3F, @ as %40, : as %3A and % as %25"
)
_HOST = re.compile(r"[\w.-]*")
"""A host, or the name of a master: sentinels allow the same characters."""


@dataclass(frozen=True, slots=True)
class Address:
    """The data that a client needs to connect."""

    mode: Mode
    urls: tuple[str, ...] = field(repr=False)
    """URLs of the server, of some nodes of the cluster, or of some sentinels with the server's database."""
    service: str = ""
    """The name of the master, as configured in the sentinels; empty without sentinels."""
    sentinel_login: dict[str, str] = field(default_factory=dict, repr=False)
    """The `username` and `password` of the sentinels; empty if they need none."""

    @classmethod
    def parse(cls, url: str, mode: Mode | None = None) -> Address:
        """Parse a URL.

        Args:
            url: a URL in one of the forms above.
            mode: the mode of a URL with a plain scheme, such as `redis://`; None for `standalone`.

        Raises:
            ValueError: the URL is invalid; the message has the allowed form, but not the URL.
        """
        transport, scheme_mode = scheme_of(url)
        if scheme_mode and mode not in (None, scheme_mode):
            raise ValueError(f"a URL without +{scheme_mode}, since DELTALOOM_REDIS_MODE={mode}")
        found = mode or scheme_mode or "standalone"
        if transport == "unix" and found != "standalone":
            raise ValueError("a URL with hosts: unix:// is for a single server only")
        rest, question, query = url.partition("://")[2].partition("?")
        server, slash, path = rest.partition("/")
        login, at, hosts = server.rpartition("@")
        # An @ there may end a password that contains a / or a ?.
        suspect = "" if at else path + query
        if transport == "unix":  # the path of a socket may contain an @
            suspect = path if at else query
        if "@" in suspect or "#" in url:
            raise ValueError(_ENCODED)
        options = _options(query, found, tls=transport == "rediss")
        login = ":".join(quote(each, safe="%") for each in login.split(":", 1))
        if transport == "unix":
            if hosts:
                raise ValueError("the path of a socket, with its first /, like unix:///run/redis.sock")
            return cls("standalone", (f"unix://{login}{at}{slash}{path}{question}{query}",))
        addresses = _hosts(found, hosts)
        if found == "standalone":
            if path.strip("/") and not path.strip("/").isdecimal():
                raise ValueError(f"no path except the number of a database; {_ENCODED}")
            return cls("standalone", (f"{transport}://{login}{at}{hosts}{slash}{path}{question}{query}",))
        service, database = _path(found, path)
        own = urlencode([(name, value) for name, value in options if name not in _SENTINEL_OPTIONS])
        return cls(
            found,
            tuple(f"{transport}://{login}{at}{each}/{database}{own and f'?{own}'}" for each in addresses),
            service,
            {name.removeprefix("sentinel_"): value for name, value in options if name in _SENTINEL_OPTIONS},
        )

    @property
    def hosts(self) -> list[tuple[str, int]]:
        """The host and port of each URL; meaningless for a socket."""
        parts = map(urlsplit, self.urls)
        return [(each.hostname or "localhost", each.port or _PORTS[self.mode]) for each in parts]


def scheme_of(url: str) -> tuple[str, Mode | None]:
    """Return a URL's transport (redis, rediss or unix) and its mode, or None for a plain scheme.

    Raises:
        ValueError: the scheme is unknown.
    """
    scheme, found, _ = url.partition("://")
    transport, plus, what = scheme.partition("+")
    mode = _MODES.get(what)
    if not found or transport not in _MODES_BY or (plus and what not in _MODES_BY[transport]):
        raise ValueError(_SCHEMES)
    return transport, mode


def _options(query: str, mode: Mode, *, tls: bool) -> list[tuple[str, str]]:
    """Return the options of a URL; raise `ValueError` for one that is not allowed."""
    options = parse_qsl(query, keep_blank_values=True)
    allowed = _OPTIONS | (_TLS_OPTIONS if tls else set())
    if mode != "cluster":
        allowed |= _NON_CLUSTER_OPTIONS | (_NON_CLUSTER_TLS_OPTIONS if tls else set())
    if mode == "sentinel":
        allowed |= set(_SENTINEL_OPTIONS)
    unknown = [name for name, _ in options if name not in allowed]
    if unknown and "@" in query:  # the query may be a part of a password
        raise ValueError(f"{_ENCODED}, and in which an option is one of {', '.join(sorted(allowed))}")
    if unknown:
        without_tls = " without TLS (rediss://)" if not tls and unknown[0].startswith("ssl_") else ""
        raise ValueError(f"no option {unknown[0]!r}{without_tls}; options are {', '.join(sorted(allowed))}")
    return options


def _hosts(mode: Mode, hosts: str) -> list[str]:
    """Return each host with its port."""
    written = hosts.split(",")
    if mode == "standalone" and written[1:]:
        raise ValueError("one host; several are for redis+cluster:// and redis+sentinel://")
    return [_host(mode, each) for each in written]


def _host(mode: Mode, written: str) -> str:
    try:
        parts = urlsplit(f"//{written}")
        port = parts.port or _PORTS[mode]
    except ValueError:
        raise ValueError("a URL with a port from 0 to 65535") from None
    host = parts.hostname or ""
    if ":" not in host and not _HOST.fullmatch(host):
        raise ValueError(f"a host of letters, digits, dots and dashes; {_ENCODED}")
    if not host and mode != "standalone":
        raise ValueError(f"a host before and after each comma, like redis+{mode}://host:port,host:port")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _path(mode: Mode, path: str) -> tuple[str, str]:
    """Return the name of the master (empty for a cluster) and the number of the database."""
    service, _, database = path.strip("/").partition("/")
    if mode == "cluster":
        if path.strip("/") not in ("", "0"):
            raise ValueError("no database: a cluster has only one, so the URL ends after the hosts")
        return "", "0"
    if not _HOST.fullmatch(service) or not service or not (database or "0").isdecimal():
        raise ValueError(
            "a URL with the name of the master, like redis+sentinel://host:port,host:port/mymaster"
        )
    return service, database or "0"
