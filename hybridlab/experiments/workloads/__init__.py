"""What happens inside a case: streams, arrivals, limit searches, soaks."""
