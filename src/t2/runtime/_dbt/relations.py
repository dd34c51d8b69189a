"""Which relations a schema holds: dbt lists all of them before it looks for one, 0.13 s for 2,000.

Here a relation is looked up by its name, until somebody asks for the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dbt.adapters.reference_keys import _ReferenceKey, lowercase

# Name and type of what has a name in whatever case, as dbt's own list tells them.
_BY_NAME = {
    "duckdb": """
        select table_name, case table_type when 'VIEW' then 'view' else 'table' end
        from system.information_schema.tables
        where lower(table_catalog) = {database} and lower(table_schema) = {schema}
            and lower(table_name) = {name}
    """,
    "postgres": """
        select relname, case relkind when 'v' then 'view' when 'm' then 'materialized_view' else 'table' end
        from pg_class join pg_namespace on pg_namespace.oid = relnamespace
        where lower(nspname) = {schema} and lower(relname) = {name} and relkind in ('r', 'p', 'v', 'm')
    """,
}


class Relations:
    """An adapter's `get_relation` and `list_relations`, which it has replaced on the adapter."""

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter
        self._cache = adapter.cache
        self._by_name = _BY_NAME.get(adapter.type())
        self._listed: set[tuple[str | None, str | None]] = set()
        self._get_of_list, self._list = adapter.get_relation, adapter.list_relations
        adapter.get_relation, adapter.list_relations = self.get, self.list

    def get(self, database: str | None, schema: str, identifier: str) -> Any:
        """Return a relation, None if there is none with this name."""
        key = _ReferenceKey(lowercase(database), lowercase(schema), lowercase(identifier))
        found = self._cache.relations.get(key)
        if found is not None and found.inner.identifier == identifier:
            return found.inner
        if self._by_name is None or (key.database, key.schema) in self._listed:
            return self._get_of_list(database, schema, identifier)
        rows = self._rows(key)
        types = [kind for name, kind in rows if name == identifier]
        if rows and not types:  # dbt knows whether another case is the same name
            return self._get_of_list(database, schema, identifier)
        return self._add(database, schema, identifier, types[0]) if types else None

    def list(self, database: str | None, schema: str) -> Any:
        """Return all relations of a schema; dbt takes one for cached that holds a single relation."""
        place = (lowercase(database), lowercase(schema))
        if place not in self._listed:
            whole = self._adapter.Relation.create(
                database=database, schema=schema, identifier="", quote_policy=self._adapter.config.quoting
            ).without_identifier()
            for relation in self._adapter.list_relations_without_caching(whole):
                self._cache.add(relation)
            self._cache.update_schemas([(database, schema)])
            self._listed.add(place)
        return self._list(database, schema)

    def forget(self) -> None:
        """Forget all of them."""
        self._cache.clear()
        self._listed.clear()

    def _rows(self, key: _ReferenceKey) -> Sequence[Any]:
        assert self._by_name is not None
        parts = {"database": key.database, "schema": key.schema, "name": key.identifier}
        literals = {part: "'" + str(text).replace("'", "''") + "'" for part, text in parts.items()}
        _, table = self._adapter.execute(self._by_name.format(**literals), auto_begin=False, fetch=True)
        return list(table.rows)

    def _add(self, database: str | None, schema: str, identifier: str, kind: str) -> Any:
        relation = self._adapter.Relation.create(
            database=database,
            schema=schema,
            identifier=identifier,
            quote_policy={"database": True, "schema": True, "identifier": True},
            type=self._adapter.Relation.get_relation_type(kind),
        )
        self._cache.add(relation)
        return relation
