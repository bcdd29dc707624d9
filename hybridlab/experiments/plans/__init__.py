"""Which cases a notebook runs: one file a question."""
