from tests.support.fixtures import fifo, serve

__all__ = ["fifo", "serve"]
