"""Reading SQL just far enough to know that it may stand inside other SQL, and by what it filters rows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

# What stands for the rows that a test looks at, in the SQL that dbt renders for it.
ROWS = "t2_screened_rows"

_TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|--[^\n]*|/\*|\w+|\s+|.""", re.DOTALL)
# Escapes, dollar quotes, comments that nest: warehouses read them differently. The quotes are unclosed ones.
_UNSURE = frozenset(("'", '"', "`", ";", "$", "#", "/*"))
# Whoever finds one of these has found more than a condition on one row.
_NOT_IN_A_CONDITION = frozenset(
    (
        *("except", "fetch", "for", "from", "group", "having", "intersect", "limit", "offset", "order"),
        *("over", "qualify", "sample", "select", "union", "using", "where", "window"),
    )
)

_NAME = r'(?:[a-z_]\w*|"[^"]+"|`[^`]+`)'


def _shape(pattern: str) -> re.Pattern[str]:
    """Compile a pattern in which a space stands for any white space, also none."""
    return re.compile(pattern.replace(" ", r"\s*"), re.DOTALL | re.IGNORECASE)


_SELECTED = _shape(rf"select\b (?:1|\*|{_NAME}) \bfrom\b {ROWS}\b where\b (?P<condition>.+)")
# Through common table expressions that add nothing.
_PASSED_ON = _shape(
    rf"with\b (?P<all>\w+) as \( select \* from\b {ROWS}\b \) , (?P<some>\w+) as \( select \* from\b "
    r"(?P=all)\b where\b (?P<condition>.+) \) select \* from\b (?P=some)"
)
# Of the distinct values of a column.
_GROUPED = _shape(
    rf"with\b (?P<all>\w+) as \( select\b (?P<column>{_NAME}) \bas\b (?P<value>\w+) , "
    rf"count\(\*\) as\b (?P<count>\w+) from\b {ROWS}\b group\b by\b (?P=column) \) "
    r"select \* from\b (?P=all)\b where\b (?P=value)\b (?P<condition>not\b in \([^()]+\))"
)


@lru_cache(maxsize=1000)
def tokens(sql: str) -> tuple[str, ...] | None:
    """Return the words, quoted texts and signs of SQL, without comments; None where it is not surely closed.

    Closed SQL ends no parenthesis that it did not begin, so it may stand inside one.
    """
    found: list[str] = []
    depth = 0
    for match in _TOKEN.finditer(sql):
        token = match.group()
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth < 0 or token in _UNSURE or "\\" in token:
            return None
        found.append("\n" if token.startswith("--") else token)
    return tuple(found) if depth == 0 else None


@lru_cache(maxsize=1000)
def condition(sql: str) -> str | None:
    """Return the condition by which a query selects its rows from ROWS; None if it does more than that."""
    plain = "".join(tokens(sql) or ()).strip()
    for shape in (_SELECTED, _PASSED_ON, _GROUPED):
        match = shape.fullmatch(plain)
        if match:
            parts = match.groupdict()
            column = parts.pop("column", "")
            text = f"{column} {parts.pop('condition')}".strip()
            return text if _is_condition(text, names=parts.values()) else None
    return None


def _is_condition(text: str, names: Iterable[str]) -> bool:
    """Whether it is a condition on one row, and names nothing that the query around it has made."""
    words = {token.strip('"`').lower() for token in tokens(text) or ("select",)}
    return not words & (_NOT_IN_A_CONDITION | {ROWS} | {name.lower() for name in names})
