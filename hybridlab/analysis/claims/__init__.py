"""The claims of the original analysis: rules, evidence, and how each is evaluated."""
