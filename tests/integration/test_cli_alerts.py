"""`deltaloom alerts check` and `explain`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from deltaloom import Partitions, StreamNames
from tests.service.alerts.made import alert
from tests.service.cli.command import deltaloom, environment

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

    from deltaloom import ModerationAlert

CONFIG = """
[destinations.on-call]
type = "slack"
url_env = "SLACK"

[destinations.idle]
type = "log"

[[routes]]
name = "grave"
match = { severity = "critical" }
to = "on-call"
text = { excerpt = 12 }
"""

OPENED = alert("I'm ")
FINISHED = alert(
    "I'm sorry, I can't talk to joe@example.com of suicide.", "refusal.finished", status="completed"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a valid file with one destination that no route uses."""
    path = tmp_path / "alerts.toml"
    path.write_text(CONFIG)
    return path


def test_check(file: Path) -> None:
    """`alerts check` finds mistakes before a relay is started, and warns of an unused destination."""
    env = environment(SLACK="https://hooks.example/x")
    done = deltaloom("alerts", "check", env=env, cwd=file.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "alerts.toml: 2 destinations, 1 route, 0 rules of its own and 23 shipped, 0 mutes\n"
    )
    assert done.stderr == (
        "warning: alerts.toml:6: destinations.idle: no route leads here, so it gets no alerts\n"
    )


def test_check_of_a_broken_file(file: Path) -> None:
    """A broken file ends in exit code 2 and one line with its place for each mistake."""
    file.write_text(f"{CONFIG}too = 1\n[[routes]]\n")
    done = deltaloom("alerts", "check", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"{file}:14: routes[0].too: is not known here; did you mean to?",
        f"{file}:15: routes[1].to: is missing",
    ]


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        ({}, "4: destinations.on-call.url_env: the environment variable SLACK is not set"),
        ({"SLACK": "hunter2"}, "2: destinations.on-call: SLACK does not hold a URL"),
    ],
)
def test_check_of_secrets(file: Path, secret: dict[str, str], says: str) -> None:
    """A missing or wrong secret is an error, unless `--no-secrets` checks the file only."""
    env = environment(DELTALOOM_ALERTS_FILE=str(file), **secret)
    done = deltaloom("alerts", "check", env=env)
    assert done.returncode == 2
    assert f"{file}:{says}" in done.stderr
    assert "hunter2" not in done.stderr
    assert deltaloom("alerts", "check", "--no-secrets", env=env).returncode == 0


EXPLAINED = """\
finished_1 · refusal finished · critical · self-harm
  the rule self-harm fits: text matches (?i)\\bsuicid|\\bself[- ]?(?:harm|injur)
rules asked before
  child-safety: text matches none of the 3 patterns
routes
  grave → on-call: fits
destinations
  on-call: gets it by grave · text excerpt · group resp_1/0/1/refusal
    I'm sorry, I…
  idle: unrouted, no route to it fits

"""


def test_explain_a_file(file: Path) -> None:
    """`alerts explain` shows which rules, routes and destinations apply to an alert in a file."""
    one = file.with_name("alert.json")
    one.write_text(FINISHED.model_dump_json(indent=2))
    done = deltaloom("alerts", "explain", str(one), "--config", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, EXPLAINED, "")


def test_explain_what_is_piped(file: Path) -> None:
    """The output of `deltaloom tail alerts --json` can be piped into `alerts explain --json`."""
    lines = f"{OPENED.model_dump_json()}\n\n{FINISHED.model_dump_json()}\n"
    env = environment(DELTALOOM_ALERTS_FILE=str(file))
    done = deltaloom("alerts", "explain", "-", "--json", env=env, stdin=lines.encode())
    explained = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["id"], each["rule"]) for each in explained] == [
        ("opened_1", None),
        ("finished_1", "self-harm"),
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "holds no alert"),
        ("{}\n", "holds something that is not an alert: id: Field required"),
        (
            '{"type": "deltaloom.refusal.opened", "text": "hunter2"}\nhunter2\n',
            "holds something that is not an alert",
        ),
    ],
)
def test_explain_what_is_no_alert(file: Path, content: str, says: str) -> None:
    """A file without alerts ends in one line, without a traceback and without words of a text."""
    other = file.with_name("other.json")
    other.write_text(content)
    done = deltaloom("alerts", "explain", str(other), "--config", str(file))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{other} {says}" in done.stderr
    assert "hunter2" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def write(redis: Redis, names: StreamNames, message: ModerationAlert) -> str:
    """Add an alert to the stream with the fields that the worker writes."""
    ids = {name: value for name in ("id", "response_id", "item_id") if (value := getattr(message, name))}
    entry: Any = {"__data__": message.model_dump_json(), **ids}
    entry_id: Any = await redis.xadd(names.alerts, entry)
    return str(entry_id, "ascii")


@pytest.mark.parametrize("partitions", [0, 3])
async def test_explain_an_id(redis: Redis, redis_url: str, prefix: str, file: Path, partitions: int) -> None:
    """`alerts explain` finds alerts on the stream by response id, item id, alert id or entry id."""
    names = Partitions(partitions, prefix).of("resp_1")
    opened = await write(redis, names, OPENED)
    await write(redis, names, alert("Another.", response_id="resp_2", item_id="msg_2", id="opened_2"))
    await redis.xadd(names.alerts, {"id": "finished_1", "__data__": "somebody else's"})
    await write(redis, names, FINISHED)
    more = {"DELTALOOM_PARTITIONS": str(partitions)} if partitions else {}
    env = environment(redis_url, prefix, DELTALOOM_ALERTS_FILE=str(file), **more)

    def explained(wanted: str) -> list[str]:
        done = deltaloom("alerts", "explain", wanted, "--json", env=env)
        assert done.returncode == 0, done.stderr
        return [json.loads(line)["id"] for line in done.stdout.splitlines()]

    assert explained("resp_1") == explained("msg_1") == ["opened_1", "finished_1"]
    assert explained("finished_1") == ["finished_1"]
    assert explained(opened if not partitions else f"{names.partition}:{opened}") == ["opened_1"]
    done = deltaloom("alerts", "explain", "resp_9", env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("resp_9 is not a file, and the stream of alerts has no alert, entry")
