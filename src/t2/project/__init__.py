"""What authors declared: reading a dbt project into frozen values."""
