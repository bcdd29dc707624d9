"""Experiments: cases from their description to their rows, one module per question."""
