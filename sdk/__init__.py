"""actord: durable actors for Python."""
