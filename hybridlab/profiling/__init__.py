"""Memory while something runs: readings, peaks by phase and owner, other processes' work."""
