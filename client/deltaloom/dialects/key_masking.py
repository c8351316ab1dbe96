"""Mask API keys, bearer tokens and passwords in messages of providers, which may repeat a request's."""

from __future__ import annotations

import re

MASK = "***"

_CHARACTER = "[A-Za-z0-9._~+/*=-]"
_VALUE = rf"{_CHARACTER}{{5,}}[A-Za-z0-9_~+/*=-]"
_KEYS = re.compile(
    rf"""
    (?P<kept>
        \b(?:bearer|basic)\s+(?={_CHARACTER}{{0,80}}[\d=*])
      | \b(?:(?:api|access)[-_\s]?key|authorization|credentials?|passwd|password|secret|signature|token)\b
        ["']?\s*(?:(?:provided|given|is)\b\s*)?(?::(?!//)|=)\s*["']?(?:(?:bearer|basic)\s+)?+
      | ://(?=[^\s/@:]{{0,80}}:[^\s/@]{{1,80}}@)
    )
    (?:[^\s/@:"']*:[^\s/@"']+(?=@)|{_VALUE})
  | \b(?:sk|pk|rk|gsk|hf|r8|xai|pplx|nvapi|csk|fw|key|tgp_v1|gh[pousr]|github_pat|glpat|xox[abprs])[-_]
    (?={_CHARACTER}{{0,80}}[\d*]){_VALUE}
  | \b(?:AIza|ya29\.|AKIA|ASIA|ABSK|eyJ){_VALUE}
  | \b(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{{32,}}(?:={{0,2}})
    """,
    re.IGNORECASE | re.VERBOSE,
)


def without_keys(text: str) -> str:
    """Return a text with `***` in place of all that looks like an API key, a token or a password."""
    return _KEYS.sub(lambda found: (found["kept"] or "") + MASK, text)
