"""The commented configuration file and service definitions."""
