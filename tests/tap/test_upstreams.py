"""The file of upstreams, and where requests may go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.alerts.deciding.findings import ConfigError
from tap.upstreams import MAX_FILE_BYTES, Upstream, Upstreams, load

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
[upstreams.openai]
url = "https://api.openai.com"
hosts = "openai.proxy:8787"
provider = "openai"

[upstreams.local]
url = "http://127.0.0.1:8000/v1/"
idle_timeout = 30
"""


def mistakes(folder: Path, text: str) -> list[str]:
    """Return the mistakes in a file, without its name."""
    file = folder / "upstreams.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    return [finding.as_line("") for finding in caught.value.findings]


def test_a_good_file_is_read(tmp_path: Path) -> None:
    """Read all keys."""
    file = tmp_path / "upstreams.toml"
    file.write_text(GOOD)
    targets = load(file).targets
    assert targets["openai"].upstream.hosts == ("openai.proxy:8787",)
    assert targets["local"].upstream.url == "http://127.0.0.1:8000/v1"
    assert targets["local"].upstream.idle_timeout == 30


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ":1: upstreams: is missing"),
        ("[upstreams]", ":1: upstreams: Dictionary should have at least 1 item after validation, not 0"),
        ("[upstreams.a]", ":1: upstreams.a.url: is missing"),
        ('[upstreams.a]\nurl = "api.openai.com"', "a URL that starts with https:// or http://"),
        ('[upstreams.a]\nurl = "https://a.test:port"', "a URL that starts with https:// or http://"),
        ('[upstreams.a]\nurl = "https://[::1"', "a URL that starts with https:// or http://"),
        ('[upstreams.a]\nurl = "https://a.test"\nhosts = "a.test/v1"', "a host as clients name it"),
        ('[upstreams.a]\nurl = "https://u:p@a.test"', "without user and password"),
        ('[upstreams.a]\nurl = "https://a.test/?key=1"', "a URL that ends with its path"),
        ('[upstreams.a]\nurl = "https://a.test"\nidle_timout = 3', "did you mean idle_timeout?"),
        ('[upstreams.a]\nurl = "https://a.test"\nca_file = "/none"', "cannot be used: No such file"),
        ('[upstreams."a/b"]\nurl = "https://a.test"', "should be a name of letters"),
        (
            (
                '[upstreams.a]\nurl = "https://a.test"\nhosts = "x"\n'
                '[upstreams.b]\nurl = "https://b.test"\nhosts = ["X"]'
            ),
            'upstreams.b.hosts[0]: "x" leads to another upstream already',
        ),
        ("[upstreams.a\n", "is not valid TOML"),
    ],
)
def test_a_mistake_is_reported_with_line_and_remedy(tmp_path: Path, text: str, expected: str) -> None:
    """Find one mistake, and repeat no secret."""
    (found,) = mistakes(tmp_path, text)
    assert expected in found
    assert "u:p" not in found


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    """Name the file."""
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"#" * (MAX_FILE_BYTES + 1), f"has more than {MAX_FILE_BYTES} bytes"), (b"# \xff", "is not UTF-8")],
)
def test_a_file_that_is_no_text_of_this_size_is_reported(tmp_path: Path, data: bytes, expected: str) -> None:
    """Refuse a file that is too large or not UTF-8 before its tables are read."""
    file = tmp_path / "upstreams.toml"
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=expected):
        load(file)


UPSTREAMS = Upstreams(
    {
        "openai": Upstream(url="https://api.openai.com", hosts=("ai.test",)),
        "local": Upstream(url="http://127.0.0.1:8000/base"),
    }
)


@pytest.mark.parametrize(
    ("host", "target", "url"),
    [
        ("tap", "/openai/v1/responses?a=%2F..&b", "https://api.openai.com/v1/responses?a=%2F..&b"),
        ("tap", "/openai", "https://api.openai.com/"),
        ("tap", "/openai?x=1", "https://api.openai.com/?x=1"),
        ("tap", "/openai//evil.test/", "https://api.openai.com//evil.test/"),
        ("tap", "/openai/a/../b", "https://api.openai.com/a/../b"),
        ("AI.test", "/v1/models", "https://api.openai.com/v1/models"),
        ("tap", "/local/chat", "http://127.0.0.1:8000/base/chat"),
        # None of these may lead anywhere.
        ("tap", "/openai@evil.test/", None),
        ("tap", "/openai:80/", None),
        ("tap", "http://evil.test/openai/", None),
        ("tap", "//openai/", None),
        ("tap", "*", None),
        ("tap", "/", None),
        ("evil.test", "/v1/models", None),
        # Nor may these leave the path of the upstream.
        ("tap", "/local/../admin", None),
        ("tap", "/local/%2e%2E/admin", None),
        ("tap", "/local/..%2fadmin", None),
        ("tap", "/local/a%5C..%5c../admin", None),
        ("tap", "/local/a/./b", None),
    ],
)
def test_a_request_leads_only_where_the_file_says(host: str, target: str, url: str | None) -> None:
    """Take scheme, host, port and the beginning of the path from the file."""
    found = UPSTREAMS.find(host, target)
    assert (found and found[0].url_of(found[1])) == url
