"""Users for locust that speak actord, scenarios made of them, and the audit of what they were answered."""
