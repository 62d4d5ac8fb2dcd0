"""The front process, the supervisor and the command line."""
