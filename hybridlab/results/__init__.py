"""A run's tables and manifest: written while it runs, read afterwards."""
