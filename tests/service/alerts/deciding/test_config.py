"""Test invalid configuration files, and the errors and warnings about them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.alerts.deciding.config import parse, secrets_missing, warnings
from service.alerts.deciding.findings import ConfigError
from service.alerts.deciding.policy import Policy
from service.alerts.deciding.schema import AlertRoute, AlertRule, Match, Mute, Redaction
from service.alerts.destinations.registry import TYPES
from tests.service.alerts.made import NOW, config

EXAMPLE = Path(__file__).parents[4] / "examples" / "alerts.toml"
LOG = '[destinations.log]\ntype = "log"\n'

NAMES = ", ".join(TYPES)

WRONG = {
    "key = ": (1, "", "is not valid TOML: invalid value"),
    "a = 1\na = 2": (2, "", "is not valid TOML: cannot overwrite a value"),
    "a = '''": (1, "", "is not valid TOML: expected \"'''\""),
    "rotes = []": (1, "rotes", "is not known here; did you mean routes?"),
    "zzz = 1": (1, "zzz", "is not known here"),
    "\nrules = 1": (2, "rules", "1 should be a valid tuple"),
    '[destinations.x]\ntype = "slak"': (
        2,
        "destinations.x.type",
        f"should be one of {NAMES}; did you mean slack?",
    ),
    "[destinations.x]": (
        1,
        "destinations.x.type",
        f"is missing: one of {NAMES}",
    ),
    '[destinations."a b"]\ntype = "log"': (1, 'destinations."a b"', "should match pattern"),
    '[destinations.x]\ntype = "log"\nrate_limit = { per_minute = 1, burts = 2 }': (
        3,
        "destinations.x.rate_limit.burts",
        "is not known here; did you mean burst?",
    ),
    '[destinations.x]\ntype = "command"\ncommand = ["a"]\ntimeot = 1': (
        4,
        "destinations.x.timeot",
        "is not known here; did you mean timeout?",
    ),
    '[destinations.x]\ntype = "slack"': (1, "destinations.x", "needs one of url_env, url_file, not none"),
    '[[rules]]\nname = "r"\npattern = "(?=x)"': (
        3,
        "rules[0].pattern",
        '"(?=x)" should be a regular expression in RE2 syntax: invalid perl operator: (?= (RE2 has no look',
    ),
    '[[rules]]\nname = "r"\npattern = ["a",\n "x*"]': (
        4,
        "rules[0].pattern[1]",
        '"x*" should be a pattern that does not match the empty text: this one matches every text',
    ),
    '[[rules]]\nname = "r"\nseverity = "info"': (
        1,
        "rules[0]",
        "needs a pattern, or a match with a criterion; else it would match every alert",
    ),
    '[[rules]]\nname = "r"\nmatch = { severity = "info" }': (
        1,
        "rules[0]",
        "needs a match without severity and category, which are what a rule decides",
    ),
    '[[rules]]\nname = "r"\npattern = "a"\nmatch = { text = "b" }': (
        1,
        "rules[0]",
        "needs one of pattern and match.text, not both",
    ),
    f'{LOG}[[routes]]\nname = "r"': (3, "routes[0].to", "is missing"),
    f'{LOG}[[routes]]\nto = "log"\nmatch = {{ phase = ["opened",\n"closed"] }}': (
        6,
        "routes[0].match.phase[1]",
        "\"closed\" should be 'opened', 'finished', 'refused', 'filtered', 'blocked', 'fallback', '",
    ),
    f'{LOG}[[routes]]\nto = "log"\nmatch = {{ tenant = [] }}': (
        5,
        "routes[0].match.tenant",
        "should have at least 1 item after validation, not 0",
    ),
    f'{LOG}[[routes]]\nto = "log"\ntext = "some"': (
        5,
        "routes[0].text",
        '"some" should be "full", "none" or { excerpt = N } with N from 1 to 10000',
    ),
    f'{LOG}[[routes]]\nto = "log"\ntext = {{ excerpt = true }}': (
        5,
        "routes[0].text",
        'should be "full", "none" or { excerpt = N } with N from 1 to 10000',
    ),
    f'{LOG}[[routes]]\nto = "lgo"': (4, "routes[0].to", '"lgo" is not a destination; did you mean log?'),
    f'{LOG}[[routes]]\nto = ["log",\n"lgo"]': (
        5,
        "routes[0].to[1]",
        '"lgo" is not a destination; did you mean log?',
    ),
    f'{LOG}[[routes]]\nname = "r"\nto = "log"\n[[routes]]\nname = "r"\nto = "log"': (
        7,
        "routes[1].name",
        '"r" is used twice',
    ),
    '[[mutes]]\nuntil = 2026-01-01T00:00:00\nwhy = "x"\nmatch = {}': (
        2,
        "mutes[0].until",
        "should have a time zone, like 2026-12-31T00:00:00Z",
    ),
    "[[mutes]]\nuntil = 2026-01-01T00:00:00Z\nmatch = {}": (1, "mutes[0].why", "is missing"),
    '[redaction]\ndefaults = ["mial"]': (
        2,
        "redaction.defaults[0]",
        "\"mial\" should be 'mail', 'phone' or 'card'",
    ),
    'shipped_rules = ["declned"]': (
        1,
        "shipped_rules[0]",
        '"declned" is not a shipped rule; did you mean declined?',
    ),
}


@pytest.mark.parametrize("toml", WRONG, ids=range(len(WRONG)))
def test_errors_point_to_their_place(toml: str) -> None:
    """Report the line, the key and the fault."""
    line, key, message = WRONG[toml]
    with pytest.raises(ConfigError) as raised:
        parse(toml, "etc/alerts.toml")
    (finding,) = raised.value.findings
    assert (finding.line, finding.key) == (line, key)
    assert finding.message.startswith(message)
    assert str(raised.value).startswith(f"etc/alerts.toml:{line}: {f'{key}: ' if key else ''}{message}")


def test_all_errors_are_reported_at_once() -> None:
    """Report all faults of a file together. Otherwise an operator would need one attempt for each."""
    toml = (
        f'{LOG}[[routes]]\nto = "log"\ntext = "x"\n[[routes]]\nto = []\n[[rules]]\nname = ""\npattern = "("'
    )
    with pytest.raises(ConfigError) as raised:
        parse(toml, "alerts.toml")
    assert [(finding.line, finding.key) for finding in raised.value.findings] == [
        (5, "routes[0].text"),
        (7, "routes[1].to"),
        (9, "rules[0].name"),
        (10, "rules[0].pattern"),
    ]


SECRET = "hunter2hunter2"  # noqa: S105 - a made-up secret that no error may show

LEAKING = (
    f'[destinations.x]\ntype = "slack"\nurl = "https://hooks.example/{SECRET}"',
    f'[destinations.x]\ntype = "slack"\nurl_env = "https://hooks.example/{SECRET}"',
    f'[destinations.x]\ntype = "webhook"\nurl = "{SECRET}"\nsecret_env = "A"',
    f'[destinations.x]\ntype = "webhook"\nurl = "https://x.example"\nsecret = "{SECRET}"',
    f'[destinations.x]\ntype = "webhook"\nurl = "https://x.example"\ntoken = "{SECRET}"\nsecret_env = "A"',
    f'[destinations.x]\ntype = "{SECRET}"',
    f'[destinations.x]\n"type" = ["{SECRET}"]',
    f'[destinations]\nx = "{SECRET}"',
    f'destinations = "{SECRET}"',
    f'[destinations.x]\ntype = "log"\nrate_limit = "{SECRET}"',
)


@pytest.mark.parametrize("toml", LEAKING, ids=range(len(LEAKING)))
def test_no_secret_is_repeated(toml: str) -> None:
    """Keep secrets out of errors, since errors are logged."""
    with pytest.raises(ConfigError) as raised:
        parse(toml, "alerts.toml")
    assert SECRET not in str(raised.value)
    assert SECRET not in repr(raised.value)
    assert raised.value.__suppress_context__


def test_secrets_missing(tmp_path: Path) -> None:
    """Report missing secrets when the file is loaded, not with the first alert."""
    there, empty = tmp_path / "there", tmp_path / "empty"
    there.write_text("secret\n")
    empty.write_text("\n")
    toml = (
        '[destinations.a]\ntype = "slack"\nurl_env = "SLACK"\n'
        f'[destinations.b]\ntype = "slack"\nurl_file = "{there}"\n'
        f'[destinations.c]\ntype = "slack"\nurl_file = "{empty}"\n'
        '[destinations.d]\ntype = "webhook"\nurl = "https://x.example"\nsecret_env = ["NEW", "OLD"]\n'
    )
    both = secrets_missing(toml, config(toml), {"OLD": "x", "SLACK": " "})
    assert [(finding.line, finding.key) for finding in both] == [
        (3, "destinations.a.url_env"),
        (9, "destinations.c.url_file"),
        (13, "destinations.d.secret_env"),
    ]
    assert "NEW" in both[-1].message
    given = {"NEW": "x", "OLD": "x", "SLACK": "x"}
    assert [finding.line for finding in secrets_missing(toml, config(toml), given)] == [9]


def test_warnings() -> None:
    """Warn of expired mutes, destinations without a route, and categories that no rule assigns."""
    toml = (
        f'{LOG}[destinations.idle]\ntype = "log"\n'
        '[[routes]]\nto = "log"\nmatch = { category = ["self-harm", "selfharm", "pol*", "x*"] }\n'
        '[[mutes]]\nmatch = {}\nuntil = 2026-05-04T12:00:00Z\nwhy = "over"\n'
        '[[mutes]]\nmatch = {}\nuntil = 2026-05-04T12:00:01Z\nwhy = "not yet"\n'
    )
    assert [finding.as_line("f") for finding in warnings(toml, config(toml), NOW)] == [
        "f:3: destinations.idle: no route leads here, so it gets no alerts",
        'f:7: routes[0].match.category[1]: no rule gives the category "selfharm"; did you mean self-harm?',
        'f:7: routes[0].match.category[3]: no rule gives the category "x*"',
        "f:10: mutes[0].until: has passed, so this mute has no effect",
    ]
    assert [finding.message for finding in warnings("", config(""), NOW)] == [
        "there are no destinations: nothing is sent"
    ]
    assert warnings(LOG, config(LOG), NOW) == []


LINES = EXAMPLE.read_text().splitlines()
VALUES = ["7", '"x"', "[[]]", "true", "1.5", "nan", "2026-01-01", '["", 1]', "{}", "{ x = [1] }", '"("']
PLACES = st.integers(0, len(LINES) - 1)


@given(st.dictionaries(PLACES, st.sampled_from(VALUES) | PLACES | st.just(""), min_size=1, max_size=3))
def test_any_faulty_file_is_a_config_error(changes: dict[int, str | int]) -> None:
    """Report any faulty file as ConfigError. Otherwise a reload could end the relay."""
    lines = list(LINES)
    for ref, other in changes.items():
        key = lines[ref].partition(" = ")[0]
        lines[ref] = lines[other] if isinstance(other, int) else f"{key} = {other}" if other else ""
    text = "\n".join(lines)
    try:
        read = parse(text, "alerts.toml")
    except ConfigError as error:
        located = [finding.line in range(len(lines) + 1) for finding in error.findings]
    else:
        Policy(read)
        secrets_missing(text, read, {})
        located = [finding.line in range(len(lines) + 1) for finding in warnings(text, read, NOW)] or [True]
    assert located
    assert all(located)


def test_the_example_shows_everything() -> None:
    """Use all options in the example file, without errors or warnings."""
    text = EXAMPLE.read_text()
    shown = parse(text, "alerts.toml")
    assert warnings(text, shown, NOW) == []
    used = {type(table) for table in shown.destinations.values()}
    missing = [name for name, each in TYPES.items() if each.options not in used]
    assert not missing, f"examples/alerts.toml has no destination of type {missing}"
    tables: list[AlertRule | AlertRoute | Mute] = [*shown.rules, *shown.routes, *shown.mutes]
    matches = [table.match for table in tables]
    assert set().union(*(match.model_fields_set for match in matches)) == set(Match.model_fields)
    for kind, shown_of_it in (
        (AlertRule, shown.rules),
        (AlertRoute, shown.routes),
        (Mute, shown.mutes),
        (Redaction, (shown.redaction,)),
    ):
        assert set().union(*(table.model_fields_set for table in shown_of_it)) == set(kind.model_fields)
