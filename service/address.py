"""Where Redis is: one server, a cluster, or a master that sentinels know. Read out of one URL.

| URL                                         | what                                              |
|---------------------------------------------|---------------------------------------------------|
| `redis://user:password@host:6379/0`         | one server; `rediss://` by TLS, `unix://` a socket |
| `redis+cluster://host:7000,host:7001`       | a cluster, and some of its nodes to ask first     |
| `redis+sentinel://host:26379,host/name/0`   | the master that these sentinels know by this name |

`rediss+cluster://` and `rediss+sentinel://` are the same by TLS. User and password are the servers'; those of
sentinels that want their own are `?sentinel_username=…&sentinel_password=…`. Other options are redis-py's.

What is not understood is refused here, in words that repeat nothing of the URL but the names of options:
the errors of the libraries that read it further on may show a password, or a part of one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

Mode = Literal["standalone", "cluster", "sentinel"]

_PORTS: dict[Mode, int] = {"standalone": 6379, "cluster": 6379, "sentinel": 26379}
_SCHEMES = (
    "an URL that starts with redis://, rediss:// or unix://, with redis+cluster:// (or rediss+cluster://) "
    "for a cluster, with redis+sentinel:// (or rediss+sentinel://) for a master that sentinels know"
)
_MODES: dict[str, Mode] = {"cluster": "cluster", "sentinel": "sentinel"}
_MODES_BY = {"redis": set(_MODES), "rediss": set(_MODES), "unix": set[str]()}
_OF_SENTINELS = ("sentinel_username", "sentinel_password")
_OPTIONS = {
    *("db", "username", "password", "client_name", "protocol"),
    *("socket_timeout", "socket_connect_timeout", "socket_keepalive", "socket_read_size"),
    *("health_check_interval", "max_connections"),
}
"""Options of redis-py that a URL can express and that change nothing the program relies on."""
_OPTIONS_OF_TLS = {
    *("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_ca_data", "ssl_cert_reqs"),
    *("ssl_check_hostname", "ssl_min_version", "ssl_ciphers"),
}
_OPTIONS_OF_NO_CLUSTER = {"retry_on_timeout"}
_OPTIONS_OF_TLS_OF_NO_CLUSTER = {"ssl_ca_path", "ssl_password"}
_ENCODED = (
    "a URL that writes, in user and password, # as %23, / as %2F, ? as %3F, @ as %40, : as %3A and % as %25"
)
_HOST = re.compile(r"[\w.-]*")
"""Also the name of a master: a sentinel allows no other characters either."""


@dataclass(frozen=True, slots=True)
class Address:
    """What a client needs to know to find the server."""

    mode: Mode
    urls: tuple[str, ...] = field(repr=False)
    """Of the server; of some nodes of the cluster; of the sentinels, with the database of the server."""
    service: str = ""
    """The name under which the sentinels know the master."""
    sentinel_login: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, url: str, mode: Mode | None = None) -> Address:
        """Read an URL.

        Args:
            url: in any of the forms above.
            mode: says what a plain `redis://` is.

        Raises:
            ValueError: it cannot be read; the message says what is allowed, and nothing of the URL.
        """
        transport, scheme_mode = scheme_of(url)
        if scheme_mode and mode not in (None, scheme_mode):
            raise ValueError(f"an URL that does not say +{scheme_mode}, with DELTALOOM_REDIS_MODE={mode}")
        found = mode or scheme_mode or "standalone"
        if transport == "unix" and found != "standalone":
            raise ValueError("a socket is one server: no cluster, and no sentinel")
        rest, question, query = url.partition("://")[2].partition("?")
        server, slash, path = rest.partition("/")
        login, at, hosts = server.rpartition("@")
        # An @ there may end a password that has a / or a ? in it.
        suspect = "" if at else path + query
        if transport == "unix":  # a socket's path may have an @ of its own
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
                raise ValueError(f"no path but the number of a database; {_ENCODED}")
            return cls("standalone", (f"{transport}://{login}{at}{hosts}{slash}{path}{question}{query}",))
        service, database = _path(found, path)
        own = urlencode([(name, value) for name, value in options if name not in _OF_SENTINELS])
        return cls(
            found,
            tuple(f"{transport}://{login}{at}{each}/{database}{own and f'?{own}'}" for each in addresses),
            service,
            {name.removeprefix("sentinel_"): value for name, value in options if name in _OF_SENTINELS},
        )

    @property
    def hosts(self) -> list[tuple[str, int]]:
        """Host and port of each URL; not for a socket."""
        parts = map(urlsplit, self.urls)
        return [(each.hostname or "localhost", each.port or _PORTS[self.mode]) for each in parts]


def scheme_of(url: str) -> tuple[str, Mode | None]:
    """How an URL is reached (redis, rediss, unix), and what it says is there; or `ValueError`."""
    scheme, found, _ = url.partition("://")
    transport, plus, what = scheme.partition("+")
    mode = _MODES.get(what)
    if not found or transport not in _MODES_BY or (plus and what not in _MODES_BY[transport]):
        raise ValueError(_SCHEMES)
    return transport, mode


def _options(query: str, mode: Mode, *, tls: bool) -> list[tuple[str, str]]:
    """Return the options of a URL; or `ValueError` for one that no client takes."""
    options = parse_qsl(query, keep_blank_values=True)
    allowed = _OPTIONS | (_OPTIONS_OF_TLS if tls else set())
    if mode != "cluster":
        allowed |= _OPTIONS_OF_NO_CLUSTER | (_OPTIONS_OF_TLS_OF_NO_CLUSTER if tls else set())
    if mode == "sentinel":
        allowed |= set(_OF_SENTINELS)
    unknown = [name for name, _ in options if name not in allowed]
    if unknown and "@" in query:  # the query may be a part of the password
        raise ValueError(f"{_ENCODED}, and in which an option is one of {', '.join(sorted(allowed))}")
    if unknown:
        without_tls = " without TLS (rediss://)" if not tls and unknown[0].startswith("ssl_") else ""
        raise ValueError(f"no option {unknown[0]!r}{without_tls}; options are {', '.join(sorted(allowed))}")
    return options


def _hosts(mode: Mode, hosts: str) -> list[str]:
    """Each host with its port."""
    written = hosts.split(",")
    if mode == "standalone" and written[1:]:
        raise ValueError("one host; several are for redis+cluster:// and redis+sentinel://")
    return [_host(mode, each) for each in written]


def _host(mode: Mode, written: str) -> str:
    try:
        parts = urlsplit(f"//{written}")
        port = parts.port or _PORTS[mode]
    except ValueError:
        raise ValueError("an URL with a port from 0 to 65535") from None
    host = parts.hostname or ""
    if ":" not in host and not _HOST.fullmatch(host):
        raise ValueError(f"a host of letters, digits, dots and dashes; {_ENCODED}")
    if not host and mode != "standalone":
        raise ValueError(f"a host before and after each comma, like redis+{mode}://host:port,host:port")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _path(mode: Mode, path: str) -> tuple[str, str]:
    """The name of the master, and the database."""
    service, _, database = path.strip("/").partition("/")
    if mode == "cluster":
        if path.strip("/") not in ("", "0"):
            raise ValueError("no database: a cluster has only one, so the URL ends after the hosts")
        return "", "0"
    if not _HOST.fullmatch(service) or not service or not (database or "0").isdecimal():
        raise ValueError(
            "the name under which the sentinels know the master, like redis+sentinel://host:port,host:port/mymaster"
        )
    return service, database or "0"
