"""The examples run on real servers. What needs a clock in the test's hand runs in this process, in virtual time."""

from tests.shards.conftest import pytest_pyfunc_call
from tests.support.fixtures import serve

__all__ = ["pytest_pyfunc_call", "serve"]
