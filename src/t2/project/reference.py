"""The reference of `meta.t2` as Markdown: `python -m t2.project.reference > docs/configuration.md`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from t2.project.config import SOURCE, TABLE, TEST, Key

HEAD = """\
# Configuration

<!-- Made from the schema by `python -m t2.project.reference > docs/configuration.md`; do not edit. -->

T2 reads dbt's own configuration first. Only what dbt has no word for goes under `meta.t2`. Unknown keys and
bad values are errors with file and line.

## dbt's own keys that T2 reads

| key | what T2 does with it |
|---|---|
| `event_time` | the column that holds the time of each row, also of sources and views |
| `batch_size` | the grain of the partitions: hour, day, month, year, and week |
| `begin` | the first partition, wall time in the table's time zone |
| `materialized` | `partitioned` is T2's own; only it builds several partitions of a table at once |
| `incremental_strategy` | how it is written: [insert_overwrite, append or merge](materializations.md) |
| `unique_key` | the columns that a merge finds a row by |
| `group` | the group's owner is the table's, unless `meta.t2.owner` names another |
| `severity` of a test | `error` holds back what reads the partition, `warn` does not |

A table with `event_time`, `batch_size` and `begin` is partitioned. Views, seeds, snapshots and `table` models
are not. Hours are hours of UTC; longer partitions are cut by the clock of the table's `timezone`.

## Where `meta.t2` is written

In `dbt_project.yml` for all models or a folder (`+meta`), in a properties file, or in `config()` of the SQL.
dbt replaces `meta.t2` as a whole when a deeper place sets it; T2 merges it key by key, the deeper place
winning:

```yaml
models:
  shop:
    marts:
      +meta: {t2: {timezone: Europe/Berlin, backfill: {partitions_per_run: 30}}}
```

For a source, what the source says holds for its tables unless they say otherwise.
"""

SECTIONS = {
    "Models, seeds and snapshots": (TABLE, ""),
    "Sources": (SOURCE, "dbt has no `batch_size` and `begin` for sources, so they are written here.\n\n"),
    "Tests": (
        TEST,
        "A generic test belongs to the table it is written at; a singular test to the last of the tables "
        "that it reads;\na test of an ephemeral model to the first table that reads the model.\n\n",
    ),
}


def reference() -> str:
    """Return docs/configuration.md."""
    sections = (f"\n## {title}\n\n{text}{_table(keys)}" for title, (keys, text) in SECTIONS.items())
    return HEAD + "".join(sections)


def _table(keys: Mapping[str, Key]) -> str:
    rows = "\n".join(_rows(keys, ""))
    return f"| key under `meta.t2` | value | default | |\n|---|---|---|---|\n{rows}\n"


def _rows(keys: Mapping[str, Key], prefix: str) -> Iterator[str]:
    for name, key in keys.items():
        yield f"| `{prefix}{name}` | {key.expects} | {key.default} | {key.doc} |"
        yield from _rows(key.keys, f"{prefix}{name}.")
        yield from _rows(key.each, f"{prefix}{name}.{key.placeholder}.")
        yield from _rows({key.placeholder: key.value} if key.value else {}, f"{prefix}{name}.")


if __name__ == "__main__":
    print(reference(), end="")
