"""`t2 backfill`: build partitions of tables again, and follow, cancel, resume or retry that."""

from __future__ import annotations

import getpass
import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from t2.cli.options import find_table, format_option, load, open_ledger, project_options
from t2.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from t2.ledger.backfills import Backfill, Span
    from t2.ledger.durations import Pace
    from t2.ledger.ledger import Ledger
    from t2.planning.asking import Chosen, Part, Preview
    from t2.planning.planner import Plan
    from t2.planning.progress import Progress
    from t2.project.model import Project

FOLD = 10
WATCH_SECONDS = 2.0

EXAMPLES = """\b
Examples:
  t2 backfill fct_flights_daily+ --from 2013-01-01 --to 2013-03-31
  t2 backfill stg_flights fct_flights --partition 2013-02-08 --partition 2013-02-09 --yes
  t2 backfill fct_flights_daily --failed --dry-run
  t2 backfill list
  t2 backfill show 3 --watch
  t2 backfill cancel 3 --now"""


class _Verbs(click.Group):
    """A group where what is no subcommand names tables: `t2 backfill TABLE` is `t2 backfill start TABLE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["start", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Verbs, epilog=EXAMPLES, subcommand_metavar="TABLE[+] ... | COMMAND ...")
def command() -> None:
    """Build partitions of tables again: once each, behind everything current.

    TABLE+ takes what reads TABLE, too. `t2 backfill start --help` lists how partitions are chosen. What will
    be done is shown first. The runs are those of `t2 dev`, in sizes of `backfill.partitions_per_run` and at
    most `backfill.concurrency` of a table at once.
    """


@command.command(epilog=EXAMPLES)
@click.argument("tables", nargs=-1, required=True, metavar="TABLE[+] ...")
@click.option("--from", "start", help="The first partition, or a day.")
@click.option("--to", "end", help="The last partition, or a day.  [default: the newest that is due]")
@click.option("--partition", "partitions", multiple=True, help="A partition, or a day; may be repeated.")
@click.option("--all", "everything", is_flag=True, help="All partitions that are due.")
@click.option("--missing", is_flag=True, help="Those that were never built.")
@click.option("--failed", is_flag=True, help="Those whose newest attempt failed or that a check blocks.")
@click.option("--reason", default="", help="Why, for whoever reads the list later.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@project_options
@format_option
@click.pass_context
def start(
    ctx: click.Context,
    tables: tuple[str, ...],
    start: str | None,
    end: str | None,
    partitions: tuple[str, ...],
    everything: bool,
    missing: bool,
    failed: bool,
    reason: str,
    yes: bool,
    dry_run: bool,
    project_dir: Path,
    profiles_dir: Path | None,
    target: str | None,
    output: str,
) -> None:
    """Show what a backfill of TABLEs would do, ask, and start it.

    Exits with 1 if there is nothing to do or a running backfill does it already.
    """
    from t2.planning.asking import keys, preview

    project = load(project_dir, profiles_dir, target)
    ledger = _ledger(project)
    ways = {"--from": start, "--partition": partitions, "--all": everything}
    ways |= {"--missing": missing, "--failed": failed}
    given = [way for way, value in ways.items() if value]
    if len(given) > 1 or (end and not start):
        raise ConfigError(
            f"{' and '.join(given) if len(given) > 1 else '--to without --from'} cannot be combined",
            hint="choose partitions in one way",
        )
    asked = _asked(tables, start, end, partitions, given)
    while True:
        seen = ledger.backfills.seq()
        plan = _plan(project, ledger)
        chosen = _chosen(project, plan, tables, (start, end, partitions, everything, missing, failed))
        if (same := _same(project, plan, ledger, chosen)) is not None:
            _say_same(project, plan, same, output)
            ctx.exit(1)
        explicit = frozenset(chosen) if partitions else frozenset()
        found = preview(project, plan.state, plan, chosen, explicit)
        paces = {part.table: ledger.pace(part.table) for part in found.parts}
        _show_preview(project, found, paces, output, dry_run)
        if not found.partitions:
            ctx.exit(1)
        if dry_run:
            return
        if not yes and (output == "json" or not click.confirm("Start it?", err=True)):
            raise ConfigError("nothing was started", hint="add --yes to start without being asked")
        from t2.ledger.backfills import Span

        spans = [
            Span(part.table, *keys(project, part.table, first, last))
            for part in found.parts
            for first, last in part.ranges
        ]
        number = ledger.backfills.ask(
            spans, asked=asked, asked_by=getpass.getuser(), reason=reason, at=time.time(), seen=seen
        )
        if number is not None:
            break
        click.echo("the backfills changed meanwhile; looking again", err=True)
    if output == "json":
        click.echo(
            json.dumps({"backfill": number, "preview": _preview_json(project, found, paces)}, indent=2)
        )
    else:
        click.echo(f"backfill {number} started; `t2 backfill show {number} --watch` follows it")


@command.command("list", epilog="Example:  t2 backfill list --format json")
@project_options
@format_option
def list_(project_dir: Path, profiles_dir: Path | None, target: str | None, output: str) -> None:
    """List the backfills, newest first; lists fold at ten."""
    project = load(project_dir, profiles_dir, target)
    ledger = _ledger(project)
    plan = _plan(project, ledger)
    rows = [_json(backfill, _progress(plan, backfill)) for backfill in ledger.backfills.all()]
    if output == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo("there are no backfills")
    for row in rows[:FOLD]:
        total = sum(row["counts"].values())
        why = f"  ({row['reason']})" if row["reason"] else ""
        click.echo(
            f"{row['id']:>4}  {row['state']:<8}  {row['counts']['done']}/{total}  "
            f"{row['asked_at'][:16]}  {row['asked_by']}  {row['asked']}{why}"
        )
    if len(rows) > FOLD:
        click.echo(f"and {len(rows) - FOLD} more")


@command.command(epilog="Example:  t2 backfill show 3 --watch")
@click.argument("number", type=int, metavar="ID")
@click.option("--watch", is_flag=True, help="Look again every two seconds until it is over.")
@project_options
@format_option
@click.pass_context
def show(
    ctx: click.Context,
    number: int,
    watch: bool,
    project_dir: Path,
    profiles_dir: Path | None,
    target: str | None,
    output: str,
) -> None:
    """Show the progress of a backfill, table by table. Exits with 1 if partitions of it failed."""
    project = load(project_dir, profiles_dir, target)
    ledger = _ledger(project)
    last = ""
    while True:
        plan = _plan(project, ledger)
        backfill = ledger.backfills.get(number)
        parts = _progress(plan, backfill)
        text = (
            json.dumps(_json(backfill, parts, project), indent=2)
            if output == "json"
            else _progress_text(project, backfill, parts)
        )
        if text != last:
            click.echo(text if not last else f"\n{text}")
            last = text
        if not watch or backfill.state != "running":
            break
        time.sleep(WATCH_SECONDS)
    ctx.exit(1 if _json(backfill, parts)["counts"]["failed"] else 0)


@command.command(epilog="Examples:  t2 backfill cancel 3 | t2 backfill cancel 3 --now")
@click.argument("number", type=int, metavar="ID")
@click.option("--now", is_flag=True, help="End the runs that it has started, too.")
@project_options
def cancel(number: int, now: bool, project_dir: Path, profiles_dir: Path | None, target: str | None) -> None:
    """Request no more runs of a backfill; those that have started go on to their end."""
    from t2.planning.progress import totals

    project = load(project_dir, profiles_dir, target)
    ledger = _ledger(project)
    while True:
        backfill = ledger.backfills.get(number)
        if backfill.state != "running":
            raise ConfigError(f"backfill {number} does not run: it is {backfill.state}")
        counts = totals(_progress(_plan(project, ledger), backfill))
        if ledger.backfills.end(backfill, "canceled", counts, time.time()):
            break
    click.echo(
        f"backfill {number} is canceled; {counts['done']} of {sum(counts.values())} partitions are done"
    )
    if now:
        from t2.definitions.runs import cancel_runs

        ended = cancel_runs(project, {"t2/backfill": str(number)})
        click.echo(f"{ended} run{'' if ended == 1 else 's'} canceled")


@command.command(epilog="Example:  t2 backfill resume 3")
@click.argument("number", type=int, metavar="ID")
@project_options
def resume(number: int, project_dir: Path, profiles_dir: Path | None, target: str | None) -> None:
    """Go on with a canceled or failed backfill: all that is not done, what failed included."""
    _again(number, project_dir, profiles_dir, target, only_failed=False)


@command.command(epilog="Example:  t2 backfill retry 3")
@click.argument("number", type=int, metavar="ID")
@project_options
def retry(number: int, project_dir: Path, profiles_dir: Path | None, target: str | None) -> None:
    """Build what failed in a backfill once more, and what waited for it."""
    _again(number, project_dir, profiles_dir, target, only_failed=True)


def _again(
    number: int, project_dir: Path, profiles_dir: Path | None, target: str | None, *, only_failed: bool
) -> None:
    project = load(project_dir, profiles_dir, target)
    ledger = _ledger(project)
    while True:
        plan = _plan(project, ledger)
        backfill = ledger.backfills.get(number)
        parts = _progress(plan, backfill)
        failed = sum(int(part.failed.sum()) for part in parts.values())
        left = sum(int((part.left | part.failed).sum()) for part in parts.values())
        if not (failed if only_failed else left):
            raise ConfigError(f"nothing of backfill {number} {'failed' if only_failed else 'is left'}")
        if backfill.state == "running" and not only_failed:
            raise ConfigError(f"backfill {number} runs already")
        if ledger.backfills.renew(backfill, *_split(plan, backfill, parts)):
            break
    click.echo(f"backfill {number} runs again: {failed} partitions that failed, {left} in all")


def _split(plan: Plan, backfill: Backfill, parts: Mapping[str, Progress]) -> tuple[list[Span], list[Span]]:
    """Return what is to be built from now on, because its last attempt failed, and the rest as it was."""
    from t2.ledger.backfills import Span
    from t2.planning.asking import keys, ranges
    from t2.planning.progress import lengths

    failed, rest = [], []
    for key, wanted in backfill.wanted(plan.project, lengths(plan)).items():
        tried = (plan.state.tables[key].failed_id > 0) & ~parts[key].done & ~parts[key].running
        again = parts[key].failed | ((wanted.backfill > 0) & tried)
        failed += [Span(key, *keys(plan.project, key, *span)) for span in ranges(again)]
        for since in sorted(set(wanted.since[(wanted.backfill > 0) & ~again].tolist())):
            same = (wanted.backfill > 0) & ~again & (wanted.since == since)
            rest += [Span(key, *keys(plan.project, key, *span), since) for span in ranges(same)]
    return failed, rest


# --- What is asked for --------------------------------------------------------------------------------


def _ledger(project: Project) -> Ledger:
    from t2.ledger.ledger import Ledger

    ledger = open_ledger(project)
    if not isinstance(ledger, Ledger):
        raise StorageError("nothing ever ran in this project", hint="start t2 dev once")
    return ledger


def _plan(project: Project, ledger: Ledger) -> Plan:
    from t2.cli.options import current_plan

    return current_plan(project, ledger)


def _asked(
    tables: Sequence[str], start: str | None, end: str | None, partitions: Sequence[str], given: Sequence[str]
) -> str:
    words = list(tables)
    words += [word for pair in (("--from", start), ("--to", end)) if pair[1] for word in pair if word]
    words += [word for partition in partitions for word in ("--partition", partition)]
    words += [way for way in given if way not in ("--from", "--partition")]
    return shlex.join(words)


def _chosen(project: Project, plan: Plan, tables: Sequence[str], asked: tuple[Any, ...]) -> Chosen:
    from t2.planning import asking

    start, end, partitions, everything, missing, failed = asked
    flags: Callable[[Plan, str], Any] | None = None
    if everything or missing or failed:
        flags = asking.every if everything else asking.missing if missing else asking.failed
    chosen: Chosen = {}
    roots = []
    for name in tables:
        key = find_table(project, name.removesuffix("+"))
        if project.tables[key].is_view:
            raise ConfigError(f"{key} is a view: it holds no data to build again")
        chosen[key] = flags(plan, key) if flags else _by_key(project, plan, key, start, end, partitions)
        roots += [key] if name.endswith("+") else []
    return asking.with_downstream(project, plan, chosen, roots)


def _by_key(
    project: Project, plan: Plan, key: str, start: str | None, end: str | None, partitions: Sequence[str]
) -> Any:
    """Return the partitions in a range or list; every contradiction is an error."""
    from t2.planning.asking import every
    from t2.planning.grid import Grid

    partitioning = project.tables[key].partitioning
    found = every(plan, key)
    if partitioning is None:
        if start or partitions:
            raise ConfigError(
                f"{key} is not partitioned", hint="leave --from and --partition out, or use --all"
            )
        return found
    due = len(found)
    grid = Grid.of(partitioning)
    if not start and not partitions:
        raise ConfigError(
            f"{key} has {partitioning.grain.value} partitions, and none was asked for",
            hint="add --from and --to, --partition, --all, --missing or --failed",
        )
    found[:] = False
    pairs = [(start, end)] if start else [(name, name) for name in partitions]
    for first, last in pairs:
        low = _around(project, key, first or "", due)[0]
        high = _around(project, key, last, due)[1] if last else due - 1
        if high < low:
            raise ConfigError(
                f"the range from {first} to {last or grid.key(due - 1)} holds no partition of {key}",
                hint="swap --from and --to",
            )
        found[low : high + 1] = True
    return found


def _around(project: Project, key: str, name: str, due: int) -> tuple[int, int]:
    """Return the numbers of the partition with a key, or of those that a day overlaps."""
    from t2.cli.options import find_partition
    from t2.planning.grid import Grid

    partitioning = project.tables[key].partitioning
    assert partitioning is not None
    grid = Grid.of(partitioning)
    try:
        day = datetime.strptime(name, "%Y-%m-%d")
    except ValueError:
        low = high = find_partition(project, key, name)
    else:
        from datetime import timedelta
        from zoneinfo import ZoneInfo

        begin = day.replace(tzinfo=ZoneInfo(grid.timezone))
        end = (day + timedelta(days=1)).replace(tzinfo=ZoneInfo(grid.timezone))
        low, high = grid.at(begin), grid.at(end - timedelta(seconds=1))
    if high < 0:
        raise ConfigError(f"{key} begins with {grid.key(0)}, after {name}")
    if low >= due:
        raise ConfigError(
            f"{key} {name} is not over yet", hint=f"the newest partition that is over is {grid.key(due - 1)}"
        )
    return max(low, 0), min(high, due - 1)


def _same(project: Project, plan: Plan, ledger: Ledger, chosen: Chosen) -> Backfill | None:
    """Return the running backfill that wants all that was asked for, if there is one."""
    from t2.planning.progress import lengths

    for backfill in ledger.backfills.running():
        wanted = backfill.wanted(project, lengths(plan))
        wants = {key: wanted[key].backfill > 0 for key in chosen if key in wanted}
        if any(flags.any() for flags in chosen.values()) and all(
            not flags.any() or (key in wants and not (flags & ~wants[key]).any())
            for key, flags in chosen.items()
        ):
            return backfill
    return None


# --- What is shown ------------------------------------------------------------------------------------


def _progress(plan: Plan, backfill: Backfill) -> dict[str, Progress]:
    from t2.planning.progress import lengths, progress

    return progress(plan, backfill.wanted(plan.project, lengths(plan)))


def _json(
    backfill: Backfill, parts: Mapping[str, Progress], project: Project | None = None
) -> dict[str, Any]:
    from t2.planning.asking import keys, ranges
    from t2.planning.progress import totals

    row: dict[str, Any] = {
        "id": backfill.id,
        "state": backfill.state,
        "asked": backfill.asked,
        "asked_by": backfill.asked_by,
        "asked_at": _moment(backfill.asked_at),
        "reason": backfill.reason,
        "ended_at": _moment(backfill.ended_at) if backfill.ended_at else None,
        # What it was when it ended stays true, whatever is built later.
        "counts": dict(backfill.counts) or totals(parts),
    }
    if project is not None:
        row["tables"] = [
            {
                "table": key,
                **part.counts(),
                "failed_partitions": [keys(project, key, *span) for span in ranges(part.failed)],
            }
            for key, part in parts.items()
        ]
    return row


def _moment(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, timezone.utc).isoformat(timespec="seconds")


def _say_same(project: Project, plan: Plan, backfill: Backfill, output: str) -> None:
    row = _json(backfill, _progress(plan, backfill))
    if output == "json":
        click.echo(json.dumps({"backfill": backfill.id, "already": row}, indent=2))
        return
    done, total = row["counts"]["done"], sum(row["counts"].values())
    click.echo(
        f"backfill {backfill.id} does that already ({done} of {total} partitions done): {backfill.asked}\n"
        f"`t2 backfill show {backfill.id} --watch` follows it, `t2 backfill cancel {backfill.id}` stops it"
    )


def _progress_text(project: Project, backfill: Backfill, parts: Mapping[str, Progress]) -> str:
    from t2.planning.asking import keys, ranges

    row = _json(backfill, parts)
    counts = row["counts"]
    head = (
        f"backfill {backfill.id} {backfill.state}: {counts['done']} of {sum(counts.values())} partitions done"
        f"\n  {backfill.asked}   by {backfill.asked_by}, {row['asked_at']}"
    )
    lines = [head + (f"\n  {backfill.reason}" if backfill.reason else "")]
    cells: list[tuple[str, ...]] = [("TABLE", "DONE", "RUNNING", "FAILED", "LEFT")]
    for key, part in parts.items():
        each = part.counts()
        cells.append((key, *(str(each[state]) for state in ("done", "running", "failed", "left"))))
    lines.append(_table(cells))
    for key, part in parts.items():
        stretches = ranges(part.failed)
        lines += [f"failed: {key} {_span(*keys(project, key, *span))}" for span in stretches[:FOLD]]
        if len(stretches) > FOLD:
            lines.append(f"and {len(stretches) - FOLD} more of {key}")
    if counts["failed"] and backfill.state != "running":
        lines.append(f"`t2 backfill retry {backfill.id}` builds what failed once more")
    return "\n".join(lines)


def _show_preview(
    project: Project, found: Preview, paces: Mapping[str, Pace], output: str, dry_run: bool
) -> None:
    if output == "json":
        if dry_run or not found.partitions:
            click.echo(json.dumps({"preview": _preview_json(project, found, paces)}, indent=2))
        return
    from t2.planning.asking import keys

    cells: list[tuple[str, ...]] = [
        ("TABLE", "PARTITIONS", "RUNS", "AT ONCE", "TIME", "ROWS", "BYTES", "RANGE")
    ]
    for part in found.parts:
        if not part.partitions:
            continue
        pace = paces[part.table]
        spans = [_span(*keys(project, part.table, *span)) for span in part.ranges]
        more = f" and {len(spans) - 2} more" if len(spans) > 2 else ""
        cells.append(
            (
                part.table,
                f"{part.partitions:,}",
                f"{part.runs:,}",
                str(_at_once(project, part.table)),
                _duration(_seconds(project, part, pace)),
                _amount(pace.rows, part.partitions),
                _amount(pace.bytes, part.partitions),
                ", ".join(spans[:2]) + more,
            )
        )
    lines = [_table(cells)] if len(cells) > 1 else ["nothing to build"]
    for part in found.parts:
        lines += [f"left out: {count:,} of {part.table}: {why}" for why, count in part.left_out.items()]
    if found.followers and found.partitions:
        lines.append(f"built again by themselves when it is over: {', '.join(found.followers[:FOLD])}")
        if len(found.followers) > FOLD:
            lines.append(f"and {len(found.followers) - FOLD} more")
    if found.partitions:
        lines.append(
            f"{found.partitions:,} partitions in {found.runs:,} runs, "
            f"about {_duration(_total_seconds(project, found, paces))} if nothing else runs; "
            "nothing else is built, and current partitions go first"
        )
    click.echo("\n".join(lines))


def _preview_json(project: Project, found: Preview, paces: Mapping[str, Pace]) -> dict[str, Any]:
    from t2.planning.asking import keys

    return {
        "partitions": found.partitions,
        "runs": found.runs,
        "seconds": _total_seconds(project, found, paces),
        "followers": list(found.followers),
        "tables": [
            {
                "table": part.table,
                "partitions": part.partitions,
                "runs": part.runs,
                "concurrency": _at_once(project, part.table),
                "seconds": _seconds(project, part, paces[part.table]),
                "rows": _times(paces[part.table].rows, part.partitions),
                "bytes": _times(paces[part.table].bytes, part.partitions),
                "ranges": [list(keys(project, part.table, *span)) for span in part.ranges],
                "left_out": dict(part.left_out),
            }
            for part in found.parts
        ],
    }


def _at_once(project: Project, key: str) -> int:
    table = project.tables[key]
    return table.backfill.concurrency if table.materialized == "partitioned" and not table.reads_itself else 1


def _seconds(project: Project, part: Part, pace: Pace) -> float | None:
    """Return how long a table takes by itself, with as many runs at once as it allows."""
    if pace.seconds is None:
        return None
    return (part.partitions * pace.seconds + part.runs * pace.run_seconds) / _at_once(project, part.table)


def _total_seconds(project: Project, found: Preview, paces: Mapping[str, Pace]) -> float | None:
    """Return about how long everything takes: the slowest table, or all of them in Dagster's free slots."""
    slots = _slots(project)
    alone = [_seconds(project, part, paces[part.table]) for part in found.parts if part.partitions]
    if not alone or None in alone:
        return None
    work = [
        (_seconds(project, part, paces[part.table]) or 0.0) * _at_once(project, part.table)
        for part in found.parts
        if part.partitions
    ]
    return max(*(value or 0.0 for value in alone), sum(work) / slots)


def _slots(project: Project) -> int:
    """Return how many runs Dagster has at once; 10 is its own default."""
    import yaml

    from t2.runtime.home import home_of

    config = yaml.safe_load(home_of(Path(project.root)).config.read_text()) or {}
    coordinator = (config.get("run_coordinator") or {}).get("config") or {}
    runs = (config.get("concurrency") or {}).get("runs") or {}
    slots = runs.get("max_concurrent_runs", coordinator.get("max_concurrent_runs", 10))
    return slots if isinstance(slots, int) and slots > 0 else 10


def _span(first: str, last: str) -> str:
    return (first or "whole") if first == last else f"{first} to {last}"


def _times(value: float | None, count: int) -> int | None:
    return None if value is None else round(value * count)


def _amount(value: float | None, count: int) -> str:
    return "-" if value is None else f"{round(value * count):,}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _table(cells: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )
