"""A dbt project with a table that has many tests, for comparing screens with dbt's own runs of them.

`dbt_utils` and `dbt_expectations` are stand-ins: packages of those names with tests of the same names,
arguments and outcomes.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from textwrap import dedent

NOW = datetime(2024, 2, 10, 12, tzinfo=timezone.utc)
DAYS = ("2024-01-01", "2024-01-02", "2024-01-03")

COLUMNS = {
    "day": "date",
    "id": "integer",
    "code": "varchar(9)",
    "amount": "double precision",
    "price": "numeric(9, 2)",
    "flag": "boolean",
    "parent": "integer",
    '"Mixed Case"': "varchar(9)",
    "n_records": "integer",
    "folded": "varchar(9)",
}

PROJECT = """
    name: screened
    version: "1.0"
    profile: screened
    flags: {send_anonymous_usage_stats: false}
    models: {screened: {+materialized: partitioned}}
    """

MODELS = """
    models:
      - name: parents
        config: {materialized: table}
      - name: events
        config: {event_time: day, batch_size: day, begin: 2024-01-01}
        columns:
          - name: id
            data_tests:
              - not_null
              - unique
              - unique: {name: id_table, config: {meta: {t2: {scope: table}}}}
              - unique: {name: id_keys, config: {meta: {t2: {scope: keys}}}}
              - not_null: {name: id_table_where, config: {where: "id > 1", meta: {t2: {scope: table}}}}
              - dbt_utils.accepted_range: {arguments: {min_value: 1, max_value: 3}}
              - dbt_utils.accepted_range:
                  {name: id_open, arguments: {min_value: 1, inclusive: false}, config: {where: "amount > 0"}}
              - dbt_utils.at_least_one
              - dbt_utils.not_constant
              - dbt_utils.not_null_proportion: {arguments: {at_least: 0.5}}
              - dbt_utils.expression_is_true: {name: id_up, arguments: {expression: "> 0"}}
              - dbt_expectations.expect_column_values_to_be_between: {arguments: {min_value: 1, max_value: 3}}
              - dbt_expectations.expect_column_values_to_be_unique
          - name: code
            data_tests:
              - accepted_values: {arguments: {values: [a, b, "it''s"]}}
              - accepted_values: {name: code_number, arguments: {values: [1, 2]}}
              - accepted_values:
                  {name: code_where, arguments: {values: [a]}, config: {where: "id = 1 or id = 2"}}
              - unique: {name: code_where_unique, config: {where: "flag"}}
              - dbt_utils.not_empty_string
              - dbt_utils.not_accepted_values: {arguments: {values: [a, ""]}}
              - dbt_expectations.expect_column_values_to_be_in_set: {arguments: {value_set: [a, b]}}
          - name: amount
            data_tests:
              - unique: {name: amount_unique}
              - unique: {name: amount_keys, config: {where: "flag", meta: {t2: {scope: keys}}}}
              - not_null: {name: amount_null}
              - accepted_values: {name: amount_in, arguments: {values: [0, 1.5], quote: false}}
              - dbt_utils.accepted_range: {name: amount_range, arguments: {min_value: 0}}
          - name: price
            data_tests:
              - accepted_values: {name: price_in, arguments: {values: ["1", "1.50"]}}
              - unique: {name: price_unique}
          - name: flag
            data_tests:
              - accepted_values: {name: flag_in, arguments: {values: [true], quote: false}}
          - name: parent
            data_tests:
              - relationships: {arguments: {to: ref('parents'), field: id}}
              - relationships:
                  {name: parent_where, arguments: {to: ref('parents'), field: id}, config: {where: "id > 1"}}
              - dbt_utils.relationships_where:
                  arguments:
                    {to: ref('parents'), field: id, from_condition: "code = 'a'", to_condition: "id > 1"}
          - name: Mixed Case
            quote: true
            data_tests:
              - not_null: {name: mixed_null}
              - unique: {name: mixed_unique}
              - unique: {name: mixed_keys, config: {meta: {t2: {scope: keys}}}}
              - accepted_values: {name: mixed_in, arguments: {values: [a, A]}}
          - name: n_records
            data_tests:
              - unique: {name: n_records_unique}
              - accepted_values: {name: n_records_in, arguments: {values: [1, 2], quote: false}}
          - name: folded
            data_tests:
              - unique: {name: folded_unique}
              - unique: {name: folded_keys, config: {meta: {t2: {scope: keys}}}}
              - accepted_values: {name: folded_in, arguments: {values: [a, b]}}
        data_tests:
          - dbt_utils.expression_is_true: {arguments: {expression: "id > 0 or code = 'a'"}}
          - dbt_utils.expression_is_true:
              {name: divides, arguments: {expression: "1 / id > 0"}, config: {where: "id <> 0"}}
          - dbt_utils.expression_is_true:
              {name: looks_elsewhere, arguments: {expression: "id in (select id from {{ ref('parents') }})"}}
          - dbt_utils.unique_combination_of_columns: {arguments: {combination_of_columns: [id, code]}}
          - dbt_expectations.expect_table_row_count_to_be_between: {arguments: {min_value: 1, max_value: 3}}
    """

UTILS = """
    {% test accepted_range(model, column_name, min_value=none, max_value=none, inclusive=true) %}
      {{ return(adapter.dispatch('test_accepted_range', 'dbt_utils')(
          model, column_name, min_value, max_value, inclusive)) }}
    {% endtest %}
    {% macro default__test_accepted_range(model, column_name, min_value, max_value, inclusive) %}
    {% set equal = '=' if inclusive else '' %}
    with given as (select * from {{ model }}), outside as (
      select * from given where 0 = 1 -- so that each bound begins with `or`
      {% if min_value is not none %} or not {{ column_name }} >{{ equal }} {{ min_value }} {% endif %}
      {% if max_value is not none %} or not {{ column_name }} <{{ equal }} {{ max_value }} {% endif %}
    )
    select * from outside
    {% endmacro %}

    {% test expression_is_true(model, expression, column_name=None) %}
      {{ return(adapter.dispatch('test_expression_is_true', 'dbt_utils')(model, expression, column_name)) }}
    {% endtest %}
    {% macro default__test_expression_is_true(model, expression, column_name) %}
    select {{ '*' if should_store_failures() else '1' }} from {{ model }}
    where not({{ column_name ~ ' ' if column_name is not none }}{{ expression }})
    {% endmacro %}

    {% test not_accepted_values(model, column_name, values, quote=True) %}
    with present as (select distinct {{ column_name }} as found from {{ model }})
    select found from present where found in (
      {% for value in values %}
      {{ "'" ~ value ~ "'" if quote else value }}{{ ', ' if not loop.last }}
      {% endfor %}
    )
    {% endtest %}

    {% test not_empty_string(model, column_name, trim_whitespace=true) %}
    with texts as (
      select {{ 'trim(' ~ column_name ~ ')' if trim_whitespace else column_name }} as found from {{ model }}
    )
    select * from texts where found = ''
    {% endtest %}

    {% test relationships_where(model, column_name, to, field, from_condition="1=1", to_condition="1=1") %}
    with children as (
      select {{ column_name }} as id from {{ model }}
      where {{ column_name }} is not null and {{ from_condition }}
    ), parents as (
      select {{ field }} as id from {{ to }} where {{ field }} is not null and {{ to_condition }}
    )
    select children.id from children left join parents on children.id = parents.id where parents.id is null
    {% endtest %}

    {% test unique_combination_of_columns(model, combination_of_columns, quote_columns=false) %}
    {% set names = [] %}
    {% for name in combination_of_columns %}
      {% do names.append(adapter.quote(name) if quote_columns else name) %}
    {% endfor %}
    select {{ names | join(', ') }} from {{ model }} group by {{ names | join(', ') }} having count(*) > 1
    {% endtest %}

    {% test at_least_one(model, column_name) %}
    select count({{ column_name }}) as found from {{ model }} having count({{ column_name }}) = 0
    {% endtest %}

    {% test not_constant(model, column_name) %}
    select count(distinct {{ column_name }}) as found from {{ model }}
    having count(distinct {{ column_name }}) = 1
    {% endtest %}

    {% test not_null_proportion(model, column_name, at_least, at_most=1) %}
    with shares as (
      select sum(case when {{ column_name }} is null then 0 else 1 end)
        / cast(count(*) as {{ dbt.type_numeric() }}) as share_
      from {{ model }}
      having count(*) > 0
    )
    select * from shares where share_ < {{ at_least }} or share_ > {{ at_most }}
    {% endtest %}
    """

EXPECTATIONS = """
    {% macro violations(model, expression) %}
    with judged as (select {{ expression }} as expression from {{ model }})
    select * from judged where not(expression = true)
    {% endmacro %}

    {% test expect_column_values_to_be_between(model, column_name, min_value, max_value) %}
    {{ dbt_expectations.violations(
        model, column_name ~ ' >= ' ~ min_value ~ ' and ' ~ column_name ~ ' <= ' ~ max_value) }}
    {% endtest %}

    {% test expect_table_row_count_to_be_between(model, min_value, max_value) %}
    {{ dbt_expectations.violations(model, 'count(*) >= ' ~ min_value ~ ' and count(*) <= ' ~ max_value) }}
    {% endtest %}

    {% test expect_column_values_to_be_unique(model, column_name) %}
    select {{ column_name }}, count(*) as {{ adapter.quote('n_records') }} from {{ model }}
    where not ({{ column_name }} is null) group by {{ column_name }} having count(*) > 1
    {% endtest %}

    {% test expect_column_values_to_be_in_set(model, column_name, value_set) %}
    with present as (select {{ column_name }} as found from {{ model }}), expected as (
      {% for value in value_set %}
      select cast('{{ value }}' as {{ dbt.type_string() }}) as wanted {{ 'union all' if not loop.last }}
      {% endfor %}
    )
    select found from present left join expected on found = wanted where wanted is null
    {% endtest %}
    """

FILES = {
    "dbt_project.yml": PROJECT,
    "models/models.yml": MODELS,
    "models/events.sql": "select * from {{ ref('parents') }}",
    "models/parents.sql": "select 1 as id",
    "dbt_packages/dbt_utils/dbt_project.yml": "name: dbt_utils\nversion: '1.0'\n",
    "dbt_packages/dbt_utils/macros/tests.sql": UTILS,
    "dbt_packages/dbt_expectations/dbt_project.yml": "name: dbt_expectations\nversion: '1.0'\n",
    "dbt_packages/dbt_expectations/macros/tests.sql": EXPECTATIONS,
}


def write(root: Path, profile: str, files: dict[str, str] | None = None) -> Path:
    """Write the project with one output in its profile."""
    profiles = f"screened: {{target: dev, outputs: {{dev: {profile}}}}}\n"
    for name, text in {**FILES, "profiles.yml": profiles, **(files or {})}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text).lstrip("\n"), "utf-8")
    return root


def create(folded: str) -> list[str]:
    """Return the statements that make the tables; `folded` is how the column of that name compares."""
    columns = ", ".join(
        f"{name} {kind}{' ' + folded if name == 'folded' else ''}" for name, kind in COLUMNS.items()
    )
    return [f"create table events ({columns})", "create table parents (id integer)"]
