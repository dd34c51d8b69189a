"""Running dbt nodes warm: parsing, windows, builds, monitors, the worker and the local processes."""
