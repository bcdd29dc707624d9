"""What rows mean: statistics, standings of arms, recommendation, claims and their verdicts."""
