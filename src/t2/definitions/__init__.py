"""The Dagster face of a project: assets, checks, sensors, executor, launcher and component."""
