"""What readers see of a run: findings in words, figures, tables, the HTML report."""
