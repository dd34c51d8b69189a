"""A stand-in for BigQuery that the real dbt-bigquery talks to: its REST interface over a DuckDB database.

Every statement is parsed as BigQuery's SQL, and refused where BigQuery would refuse it and DuckDB would not:
a table with `require_partition_filter` that is read without its partition column, a DATE that is compared
with a TIMESTAMP, a WHERE without FROM, a partition that is copied into a table with other columns, types or
partitions. `statements` and `copies` are what it was asked to do.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

import duckdb
import sqlglot
from sqlglot import exp

PROJECT = "proj"
FORMATS = {"HOUR": "%Y%m%d%H", "DAY": "%Y%m%d", "MONTH": "%Y%m", "YEAR": "%Y"}
TYPES = {
    "BIGINT": "INTEGER",
    "INTEGER": "INTEGER",
    "HUGEINT": "INTEGER",
    "VARCHAR": "STRING",
    "DATE": "DATE",
    "DOUBLE": "FLOAT",
    "BOOLEAN": "BOOLEAN",
    "TIMESTAMP": "DATETIME",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
}
# sqlglot's names of BigQuery's types.
TEMPORAL = {"DATE": "DATE", "TIMESTAMP": "DATETIME", "DATETIME": "DATETIME", "TIMESTAMPTZ": "TIMESTAMP"}


class RefusedError(Exception):
    """What BigQuery answers with an error."""

    def __init__(self, message: str, code: int = 400, reason: str = "invalidQuery") -> None:
        super().__init__(message)
        self.answer = {
            "error": {"code": code, "message": message, "errors": [{"reason": reason, "message": message}]}
        }
        self.code = code


@dataclass
class Made:
    """What DuckDB does not know of a table."""

    kind: str = "TABLE"
    partitioned_by: tuple[str, str] | None = None  # granularity and column
    clustered_by: tuple[str, ...] = ()
    needs_filter: bool = False
    options: dict[str, str] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)


class BigQuery:
    """The server; `url` is what a profile's `api_endpoint` is set to."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.copies: list[tuple[str, str]] = []
        self.changes: list[tuple[str, str]] = []  # tables whose metadata was changed
        self.failing: list[tuple[str, str]] = []  # (part of a statement, message): fails once
        self.tables: dict[tuple[str, str], Made] = {}
        self._jobs: dict[str, dict[str, Any]] = {}
        self._rows: dict[str, tuple[list[dict[str, str]], list[tuple[Any, ...]]]] = {}
        self._duckdb = duckdb.connect()
        self._lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._duckdb.close()

    def reset(self, statements: list[str]) -> None:
        """Empty the warehouse, execute BigQuery's SQL, and forget what was asked."""
        with self._lock:
            for key in list(self.tables):
                self.delete(*key)
            for statement in statements:
                self.execute(statement)
            self.statements.clear()
            self.copies.clear()
            self.changes.clear()

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Execute BigQuery's SQL; return the rows of its last statement."""
        with self._lock:
            return self._script(sql)[2]

    def names(self, schema: str = "main") -> list[str]:
        return sorted(name for found, name in self.tables if found == schema)

    # ---- jobs

    def job(self, body: dict[str, Any]) -> dict[str, Any]:
        configuration = body["configuration"]
        name = body.get("jobReference", {}).get("jobId") or uuid.uuid4().hex
        statistics: dict[str, Any] = {
            "creationTime": "0",
            "startTime": "0",
            "endTime": "0",
            "totalBytesProcessed": "0",
        }
        with self._lock:
            if "query" in configuration:
                query = configuration["query"]
                kind, target, rows, schema = self._query(query["query"])
                statistics["query"] = {
                    "statementType": kind,
                    "totalBytesProcessed": "0",
                    "totalBytesBilled": "0",
                    "totalSlotMs": "0",
                    "cacheHit": False,
                    "numDmlAffectedRows": "0",
                }
                query["destinationTable"] = {
                    "projectId": PROJECT,
                    "datasetId": target[0] if target else "_anonymous",
                    "tableId": target[1] if target else name,
                }
                self._rows[name] = schema, rows
                configuration["jobType"] = "QUERY"
            else:
                self._copy(configuration["copy"])
                configuration["jobType"] = "COPY"
        self._jobs[name] = {
            "kind": "bigquery#job",
            "id": f"{PROJECT}:US.{name}",
            "jobReference": {"projectId": PROJECT, "jobId": name, "location": "US"},
            "configuration": configuration,
            "status": {"state": "DONE"},
            "statistics": statistics,
        }
        return self._jobs[name]

    def results(self, name: str) -> dict[str, Any]:
        schema, rows = self._rows[name]
        return {
            "kind": "bigquery#getQueryResultsResponse",
            "jobComplete": True,
            "jobReference": self._jobs[name]["jobReference"],
            "schema": {"fields": schema},
            "rows": [{"f": [{"v": _value(value)} for value in row]} for row in rows],
            "totalRows": str(len(rows)),
        }

    def _query(
        self, sql: str
    ) -> tuple[str, tuple[str, str] | None, list[tuple[Any, ...]], list[dict[str, str]]]:
        for part, message in list(self.failing):
            if part in sql:
                self.failing.remove((part, message))
                raise RefusedError(message)
        kind, target, rows, schema = self._script(sql)
        self.statements.append(" ".join(re.sub(r"/\*.*?\*/", "", sql, flags=re.DOTALL).split()))
        return kind, target, rows, schema

    def _script(self, sql: str) -> Any:
        try:
            parsed = [found for found in sqlglot.parse(sql, dialect="bigquery") if found is not None]
        except sqlglot.errors.ParseError as error:
            raise RefusedError(f"Syntax error: {error}") from error
        begun, done = False, ("SELECT", None, [], [])
        try:
            for statement in parsed:
                if isinstance(statement, exp.Command):
                    raise RefusedError(f"Syntax error: not understood: {statement.sql()}")
                begun |= isinstance(statement, exp.Transaction)
                done = self._statement(statement)
                begun &= not isinstance(statement, exp.Commit)
        except duckdb.Error as error:
            message = str(error)
            raise RefusedError(
                f"Not found: Table {message}" if "does not exist" in message else message
            ) from error
        finally:
            if begun:
                self._duckdb.execute("rollback")
        return ("SCRIPT", *done[1:]) if len(parsed) > 1 else done

    # ---- statements

    def _statement(
        self, statement: exp.Expression
    ) -> tuple[str, Any, list[tuple[Any, ...]], list[dict[str, str]]]:
        self._check(statement)
        if isinstance(statement, exp.Create) and statement.kind == "SCHEMA":
            self._duckdb.execute(f'create schema if not exists "{statement.this.db}"')
            return "CREATE_SCHEMA", None, [], []
        if isinstance(statement, exp.Create) and statement.kind in ("TABLE", "VIEW"):
            return self._create(statement)
        if isinstance(statement, exp.Create):  # a temporary function ends with its job
            statement.set("replace", True)
        if isinstance(statement, exp.Drop):
            table = statement.find(exp.Table)
            self.delete(*_key(table))
            return "DROP_TABLE", None, [], []
        cursor = self._duckdb.execute(self._to_duckdb(statement))
        kind = {exp.Merge: "MERGE", exp.Insert: "INSERT", exp.Update: "UPDATE", exp.Delete: "DELETE"}.get(
            type(statement)
        )
        if kind or not cursor.description or not isinstance(statement, exp.Query):
            table = statement.find(exp.Table)
            return kind or "SCRIPT", _key(table) if kind else None, [], []
        schema = [
            {"name": name, "type": TYPES.get(str(type_).split("(")[0], "NUMERIC"), "mode": "NULLABLE"}
            for name, type_, *_ in cursor.description
        ]
        return "SELECT", None, cursor.fetchall(), schema

    def _create(
        self, statement: exp.Create
    ) -> tuple[str, tuple[str, str], list[tuple[Any, ...]], list[dict[str, str]]]:
        table = statement.find(exp.Table)
        key = _key(table)
        found = self.tables.get(key)
        made = Made(kind=statement.kind)
        for given in statement.args["properties"].expressions if statement.args.get("properties") else ():
            if isinstance(given, exp.PartitionedByProperty):
                made.partitioned_by = _partitioned_by(given.this)
            elif isinstance(given, exp.ClusterProperty):
                made.clustered_by = tuple(column.name for column in given.expressions)
            elif type(given) is exp.Property:
                made.options[given.name.lower()] = given.args["value"].sql("bigquery")
        made.needs_filter = made.options.get("require_partition_filter", "").upper() == "TRUE"
        if "description" in made.options:
            made.descriptions[""] = made.options["description"].strip("'\"")
        if found and not statement.args.get("replace"):
            if statement.args.get("exists"):
                return "CREATE_TABLE_AS_SELECT", key, [], []
            raise RefusedError(f"Already Exists: Table {PROJECT}:{'.'.join(key)}", 409, "duplicate")
        if found and (found.partitioned_by, found.clustered_by) != (made.partitioned_by, made.clustered_by):
            raise RefusedError("Cannot replace a table with a different partitioning spec.")
        self._make(statement, key, found)
        self.tables[key] = made
        return f"CREATE_{statement.kind}" + ("_AS_SELECT" if statement.kind == "TABLE" else ""), key, [], []

    def _make(self, statement: exp.Create, key: tuple[str, str], found: Made | None) -> None:
        if found:
            self._duckdb.execute(f'alter table "{key[0]}"."{key[1]}" rename to "{key[1]}__replaced"')
        columns = statement.this.expressions if isinstance(statement.this, exp.Schema) else []
        empty = statement.expression is None
        named = statement.this.copy() if empty else exp.table_(key[1], db=key[0], quoted=True)
        plain = exp.Create(this=named, kind=statement.kind, expression=statement.expression)
        query = self._to_duckdb(plain)
        if found:  # the query may read what it replaces
            query = query.replace(f'FROM "{key[0]}"."{key[1]}" ', f'FROM "{key[0]}"."{key[1]}__replaced" ')
        self._duckdb.execute(query)
        for column in columns if not empty else ():
            name = column.name
            self._duckdb.execute(
                f'alter table "{key[0]}"."{key[1]}" alter "{name}" type {column.kind.sql("duckdb")}'
            )
            if column.find(exp.NotNullColumnConstraint):
                self._duckdb.execute(f'alter table "{key[0]}"."{key[1]}" alter "{name}" set not null')
        if found:
            self._duckdb.execute(f'drop table "{key[0]}"."{key[1]}__replaced"')

    def _to_duckdb(self, statement: exp.Expression) -> str:
        plain = statement.copy()
        for table in plain.find_all(exp.Table):
            table.set("catalog", None)
        return plain.sql("duckdb")

    # ---- what BigQuery refuses

    def _check(self, statement: exp.Expression) -> None:
        for select in statement.find_all(exp.Select):
            if select.args.get("where") and not (select.args.get("from_") or select.args.get("from")):
                raise RefusedError("Query without FROM clause cannot have a WHERE clause")
        for table in statement.find_all(exp.Table):
            made = self.tables.get(_key(table))
            if (
                made
                and made.needs_filter
                and made.partitioned_by
                and not self._is_filtered(table, made.partitioned_by[1])
            ):
                raise RefusedError(
                    f"Cannot query over table '{table.db}.{table.name}' without a filter over column(s) "
                    f"'{made.partitioned_by[1]}' that can be used for partition elimination"
                )
        types = self._types(statement)
        for compared in statement.find_all(exp.GT, exp.GTE, exp.LT, exp.LTE, exp.EQ):
            kinds = {
                kind for side in (compared.this, compared.expression) if (kind := _temporal(side, types))
            }
            if len(kinds) > 1:
                wrong = ", ".join(sorted(kinds))
                raise RefusedError(f"No matching signature for operator {compared.key}: {wrong}")

    def _is_filtered(self, table: exp.Table, column: str) -> bool:
        merge = table.parent if isinstance(table.parent, exp.Merge) and table.arg_key == "this" else None
        if merge is None:
            if isinstance(table.parent, (exp.Create, exp.Insert, exp.Schema)):
                return True
            reader = table.find_ancestor(exp.Select, exp.Update, exp.Delete)
            where = reader.args.get("where") if reader else None
            return bool(where and _names(where, column))
        if _names(merge.args["on"], column):
            return True
        by_source = [when for when in merge.find_all(exp.When) if when.args.get("source")]
        return bool(by_source) and all(
            _names(when.args["condition"], column) for when in by_source if when.args.get("condition")
        )

    def _types(self, statement: exp.Expression) -> dict[str, str]:
        """Return the types of the columns of all tables in a statement, where they agree."""
        found: dict[str, set[str]] = {}
        for table in statement.find_all(exp.Table):
            if _key(table) in self.tables:
                for column in self.fields(_key(table)):
                    found.setdefault(column["name"].lower(), set()).add(column["type"])
        return {name: kinds.pop() for name, kinds in found.items() if len(kinds) == 1}

    # ---- tables

    def fields(self, key: tuple[str, str]) -> list[dict[str, str]]:
        rows = self._duckdb.execute(f'describe "{key[0]}"."{key[1]}"').fetchall()
        descriptions = self.tables[key].descriptions
        return [
            {
                "name": name,
                "type": TYPES.get(type_, "NUMERIC"),
                "mode": "NULLABLE" if nullable == "YES" else "REQUIRED",
                **({"description": descriptions[name.lower()]} if name.lower() in descriptions else {}),
            }
            for name, type_, nullable, *_ in rows
        ]

    def table(self, schema: str, name: str) -> dict[str, Any]:
        with self._lock:
            name = name.partition("$")[0]
            made = self.tables.get((schema, name))
            if made is None:
                raise RefusedError(f"Not found: Table {PROJECT}:{schema}.{name}", 404, "notFound")
            answer = {
                "kind": "bigquery#table",
                "id": f"{PROJECT}:{schema}.{name}",
                "tableReference": {"projectId": PROJECT, "datasetId": schema, "tableId": name},
                "type": made.kind,
                "schema": {"fields": self.fields((schema, name))},
                "numRows": "0",
                "location": "US",
            }
            if made.partitioned_by and made.partitioned_by[0] in FORMATS:
                answer["timePartitioning"] = {"type": made.partitioned_by[0], "field": made.partitioned_by[1]}
            if made.clustered_by:
                answer["clustering"] = {"fields": list(made.clustered_by)}
            if "" in made.descriptions:
                answer["description"] = made.descriptions[""]
            return answer

    def change(self, schema: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            made = self.tables[schema, name]
            self.changes.append((schema, name))
            if "description" in body:
                made.descriptions[""] = body["description"]
            known = {column["name"] for column in self.fields((schema, name))}
            for column in body.get("schema", {}).get("fields", ()):
                if column["name"] not in known:
                    type_ = sqlglot.exp.DataType.build(column["type"], dialect="bigquery").sql("duckdb")
                    self._duckdb.execute(
                        f'alter table "{schema}"."{name}" add column "{column["name"]}" {type_}'
                    )
                if "description" in column:
                    made.descriptions[column["name"].lower()] = column["description"]
            return self.table(schema, name)

    def delete(self, schema: str, name: str) -> None:
        with self._lock:
            bare, _, partition = name.partition("$")
            made = self.tables.get((schema, bare))
            if made is None:
                raise RefusedError(f"Not found: Table {PROJECT}:{schema}.{bare}", 404, "notFound")
            if partition:
                self.statements.append(f"drop partition {name}")
                self._duckdb.execute(
                    f'delete from "{schema}"."{bare}" where {_in_partition(made, partition)}'
                )
                return
            self._duckdb.execute(f'drop {made.kind} "{schema}"."{bare}"')
            del self.tables[schema, bare]

    def _copy(self, copy: dict[str, Any]) -> None:
        (source,), target = copy["sourceTables"], copy["destinationTable"]
        assert copy["writeDisposition"] == "WRITE_TRUNCATE"
        self.copies.append((source["tableId"], target["tableId"]))
        keys, partitions = [], []
        for table in (source, target):
            name, _, partition = table["tableId"].partition("$")
            self.table(table["datasetId"], name)
            keys.append((table["datasetId"], name))
            partitions.append(partition)
        of, into = (self.tables[key] for key in keys)
        shapes = [
            [(column["name"], column["type"], column["mode"]) for column in self.fields(key)] for key in keys
        ]
        if shapes[0] != shapes[1]:
            raise RefusedError(f"Provided Schema does not match Table {keys[1]}: {shapes[0]} and {shapes[1]}")
        if (of.partitioned_by, of.clustered_by) != (
            into.partitioned_by,
            into.clustered_by,
        ) or not of.partitioned_by:
            raise RefusedError(
                "Incompatible table partitioning specification when copying to the column partitioned table"
            )
        where, names = _in_partition(of, partitions[0]), [f'"{key[0]}"."{key[1]}"' for key in keys]
        if self._duckdb.execute(f"select count(*) from {names[0]} where {where}").fetchone() == (0,):
            raise RefusedError(f"Not found: Table {source['tableId']}", 404, "notFound")
        self._duckdb.execute(
            f"begin; delete from {names[1]} where {_in_partition(into, partitions[1])};"
            f" insert into {names[1]} select * from {names[0]} where {where}; commit"
        )


def _key(table: exp.Table) -> tuple[str, str]:
    return table.db or "main", table.name


def _partitioned_by(expression: exp.Expression) -> tuple[str, str]:
    if isinstance(expression, exp.Schema):
        expression = expression.expressions[0]
    if expression.sql("bigquery").lower().startswith("range_bucket"):
        return "RANGE", expression.find(exp.Column).name
    unit = expression.args.get("unit")
    column = expression.find(exp.Column)
    return (
        unit.name.upper() if unit is not None else "DAY",
        column.name if column is not None else expression.name,
    )


def _in_partition(made: Made, partition: str) -> str:
    assert made.partitioned_by
    granularity, column = made.partitioned_by
    datetime.strptime(partition, FORMATS[granularity])
    return f"""strftime("{column}", '{FORMATS[granularity]}') = '{partition}'"""


def _names(expression: exp.Expression, column: str) -> bool:
    return any(found.name.lower() == column.lower() for found in expression.find_all(exp.Column))


def _temporal(side: exp.Expression, types: dict[str, str]) -> str | None:
    if isinstance(side, exp.Column):
        kind = types.get(side.name.lower())
        return kind if kind in TEMPORAL.values() else None
    if isinstance(side, exp.Cast):
        return TEMPORAL.get(side.to.this.name)
    return None


def _value(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        if value.tzinfo is None:
            return value.isoformat()
        return str(int(value.astimezone(timezone.utc).timestamp() * 1_000_000))
    return value.isoformat() if isinstance(value, date) else None if value is None else str(value)


def _handler(bigquery: BigQuery) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # An answer is one packet: two would wait 40 ms for each other.
        wbufsize = 1 << 16
        disable_nagle_algorithm = True

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self) -> None:
            url = urlparse(self.path)
            _, _, *rest = [unquote(part) for part in url.path.removeprefix("/bigquery/v2/").split("/")]
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            try:
                answer, code = _route(bigquery, self.command, rest, body, parse_qs(url.query)), 200
            except RefusedError as error:
                answer, code = error.answer, error.code
            except Exception as error:  # a client would try again for minutes without an answer
                answer, code = RefusedError(f"the stand-in fails: {error!r}").answer, 400
            encoded = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815

    return Handler


def _route(
    bigquery: BigQuery, method: str, rest: list[str], body: dict[str, Any], query: dict[str, list[str]]
) -> Any:
    match method, rest:
        case "POST", ["jobs"]:
            return bigquery.job(body)
        case "GET", ["jobs", name]:
            return bigquery._jobs[name]
        case "GET", ["queries", name]:
            return bigquery.results(name)
        case "GET", ["datasets", schema]:
            reference = {"projectId": PROJECT, "datasetId": schema}
            return {
                "kind": "bigquery#dataset",
                "id": f"{PROJECT}:{schema}",
                "datasetReference": reference,
                "location": "US",
            }
        case "GET", ["datasets", schema, "tables"]:
            return {
                "kind": "bigquery#tableList",
                "tables": [bigquery.table(*key) for key in list(bigquery.tables) if key[0] == schema],
            }
        case "GET", ["datasets", _, "routines"]:
            return {"routines": []}
        case "GET", ["datasets", "_anonymous", "tables", name]:
            return {
                "tableReference": {"projectId": PROJECT, "datasetId": "_anonymous", "tableId": name},
                "numRows": "0",
                "type": "TABLE",
            }
        case "GET", ["datasets", schema, "tables", name]:
            return bigquery.table(schema, name)
        case (("PATCH" | "PUT"), ["datasets", schema, "tables", name]):
            return bigquery.change(schema, name, body)
        case "DELETE", ["datasets", schema, "tables", name]:
            bigquery.delete(schema, name)
            return {}
    raise RefusedError(f"the stand-in knows no {method} {'/'.join(rest)}", 501, "notImplemented")
