"""What has happened: the tail of Dagster's event log, one row a (table, partition)."""
