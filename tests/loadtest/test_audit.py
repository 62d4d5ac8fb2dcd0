"""The audit finds a debit that was answered and not written, and one that was written twice."""

from __future__ import annotations

from typing import Any

import pytest
from actord.loadtest import audit
from actord.loadtest.measure import WrkResult


def result(requests: int, **errors: int) -> WrkResult:
    kinds = dict.fromkeys(("status", "connect", "read", "write", "timeout"), 0) | errors
    return WrkResult(requests, 1.0, kinds, 1, 1, 1, 1)


@pytest.fixture
def accounts(bank: Any, monkeypatch: pytest.MonkeyPatch) -> audit.Accounts:
    monkeypatch.setattr(audit, "NAMES", 40)
    found = audit.Accounts(bank.port)
    found.open()
    return found


def test_balances_of_an_honest_server_agree_with_its_answers(accounts: audit.Accounts, bank: Any) -> None:
    accounts.debit_one_by_one(25)
    verdict = accounts.audit()
    assert verdict == audit.Verdict("all accounts, whole run", 25, 0, 25)
    assert verdict.holds
    # Reading was itself 40 debits; a second audit knows of them.
    assert accounts.audit() == audit.Verdict("all accounts, whole run", 65, 0, 65)


def test_an_answered_debit_that_was_not_written_is_found(accounts: audit.Accounts, bank: Any) -> None:
    bank.forget_every = 25
    accounts.debit_one_by_one(25)
    bank.forget_every = 0
    verdict = accounts.audit()
    assert verdict.written == 24
    assert not verdict.holds


def test_a_debit_that_was_written_twice_is_found(accounts: audit.Accounts, bank: Any) -> None:
    bank.write_twice_every = 25
    accounts.debit_one_by_one(25)
    bank.write_twice_every = 0
    assert not accounts.audit().holds


def test_calls_under_way_at_the_end_may_or_may_not_be_written(accounts: audit.Accounts, bank: Any) -> None:
    for really, holds in ((9, False), (10, True), (13, True), (14, False)):
        before = accounts.balance(audit.HOT)
        bank.balances[audit.HOT] -= really
        # 12 requests were made, 2 of them answered with an error, on one connection: 10 are sure, 3 are open.
        verdict = accounts.audit_hot(before, result(12, status=2), 1)
        assert (verdict.answered, verdict.uncertain, verdict.written) == (10, 3, really)
        assert verdict.holds is holds


def test_accounts_that_do_not_open_with_the_right_balance_are_refused(
    bank: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "NAMES", 40)
    bank.balances["acct-7"] = 5
    with pytest.raises(audit.AuditError, match="1 accounts"):
        audit.Accounts(bank.port).open()


def test_a_refused_debit_is_an_error_and_no_reading(accounts: audit.Accounts, bank: Any) -> None:
    bank.balances[audit.HOT] = 0
    with pytest.raises(audit.AuditError, match="refused"):
        accounts.balance(audit.HOT)


def test_a_server_answers_only_with_status_200(bank: Any) -> None:
    accounts = audit.Accounts(bank.port)
    assert accounts.answers()
    bank.status = 503
    assert not accounts.answers()
    assert bank.balances == {}
