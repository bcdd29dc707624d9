"""One look at a GPU, within minutes: see `__main__`."""
