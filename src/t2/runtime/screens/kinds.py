"""The generic tests that can be screened: their SQL follows from their arguments alone.

Left out are tests whose macros ask the database while they are rendered (for the columns of a relation), read
the clock or replace `fail_calc`, and tests that somebody else wrote: their macros may read what only dbt's
own run of a test gives them.
"""

from __future__ import annotations


def _of(package: str, *names: str) -> frozenset[str]:
    return frozenset(f"{package}.{name}" for name in names)


# A row, or a group of rows, fails on its own: no failures in several partitions means none in each of them.
OF_ROWS = (
    frozenset(("accepted_values", "not_null", "relationships", "unique"))
    | _of(
        "dbt_utils",
        "accepted_range",
        "expression_is_true",
        "not_accepted_values",
        "not_empty_string",
        "relationships_where",
        "unique_combination_of_columns",
    )
    | _of(
        "dbt_expectations",
        "expect_column_pair_values_A_to_be_greater_than_B",
        "expect_column_pair_values_to_be_equal",
        "expect_column_value_lengths_to_be_between",
        "expect_column_value_lengths_to_equal",
        "expect_column_values_to_be_between",
        "expect_column_values_to_be_in_set",
        "expect_column_values_to_be_null",
        "expect_column_values_to_be_unique",
        "expect_column_values_to_match_regex",
        "expect_column_values_to_not_be_in_set",
        "expect_column_values_to_not_be_null",
        "expect_column_values_to_not_match_regex",
        "expect_compound_columns_to_be_unique",
    )
)

# What is counted depends on all rows of a partition: several partitions are never looked at as one.
OF_PARTITIONS = _of("dbt_utils", "at_least_one", "not_constant", "not_null_proportion") | _of(
    "dbt_expectations",
    "expect_column_distinct_count_to_equal",
    "expect_column_max_to_be_between",
    "expect_column_mean_to_be_between",
    "expect_column_median_to_be_between",
    "expect_column_min_to_be_between",
    "expect_column_proportion_of_unique_values_to_be_between",
    "expect_column_sum_to_be_between",
    "expect_column_unique_value_count_to_be_between",
    "expect_table_row_count_to_be_between",
    "expect_table_row_count_to_equal",
)
