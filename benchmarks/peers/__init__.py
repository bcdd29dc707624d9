"""The lab's ways of sharing against what people run today: `python -m benchmarks.peers`."""
