"""The claims of the document: rules, evidence, and how each is evaluated."""
