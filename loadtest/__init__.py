"""Load generation and benchmarks: a client of actord, it imports nothing of it."""
