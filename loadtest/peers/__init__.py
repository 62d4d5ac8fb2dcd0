"""The servers that actord is compared with: each one file, started as a process of its own by ``loadtest.systems``."""
