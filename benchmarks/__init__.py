"""Where the README's figures come from: T2 beside stock Dagster + dbt on the same synthetic projects."""
