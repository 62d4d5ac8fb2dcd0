"""From strace's words to the order of log, sync and reply."""

from __future__ import annotations

import pytest
from actord.loadtest.order import Event, Order, events, order

PORT = 8000
CLIENT = "9<TCP:[127.0.0.1:8000->127.0.0.1:41234]>"
DATABASE = "5<TCP:[127.0.0.1:41235->127.0.0.1:5432]>"
ASKED = f'11 recvfrom({CLIENT}, "PO"..., 65536, 0, NULL, NULL) = 161'
WRITTEN = '12 pwrite64(7</var/data/x.db-wal>, "ab"..., 4096, 24) = 4096'
OTHER = '13 pwrite64(8</var/data/table>, "ab"..., 8192, 24) = 8192'
SYNCED = "12 fdatasync(7</var/data/x.db-wal>) = 0"
ANSWERED = f'11 sendto({CLIENT}, "HT"..., 120, MSG_NOSIGNAL, NULL, 0) = 120'
SUBMITTED = "12 io_submit(0x7f, 1, [{aio_lio_opcode=IOCB_CMD_FDSYNC, aio_fildes=7</var/data/x.db-wal>}]) = 1"
REAPED = "12 io_getevents(0x7f, 0, 16, [{data=0x6, obj=0x7f, res=0, res2=0}], NULL) = 1"


@pytest.mark.parametrize(
    ("lines", "durable"),
    [
        ([ASKED, WRITTEN, SYNCED, ANSWERED], True),
        ([ASKED, WRITTEN, ANSWERED, SYNCED], False),
        ([ASKED, WRITTEN, ANSWERED], False),
        ([ASKED, SYNCED, ANSWERED], False),
        ([ASKED, SYNCED, WRITTEN, ANSWERED], False),
        ([ASKED, ANSWERED], False),
        ([WRITTEN, SYNCED, ASKED, ANSWERED], False),
        ([ASKED, WRITTEN, OTHER, SYNCED, OTHER, ANSWERED], True),
        ([ASKED, OTHER, SYNCED, ANSWERED], False),
        ([ASKED, WRITTEN, SYNCED.replace("= 0", "= -1 EIO (Input/output error)"), ANSWERED], False),
        ([ASKED, WRITTEN, SUBMITTED, REAPED, ANSWERED], True),
        ([ASKED, WRITTEN, SUBMITTED, ANSWERED, REAPED], False),
        ([ASKED, WRITTEN, SUBMITTED, REAPED.replace("res=0", "res=-5"), ANSWERED], False),
        ([ASKED, WRITTEN, REAPED, ANSWERED], False),
    ],
    ids=[
        "log, sync, reply",
        "reply before sync",
        "no sync",
        "nothing written",
        "sync before log",
        "nothing at all",
        "of the call before",
        "others write as well",
        "another file's sync",
        "failed sync",
        "kernel's sync",
        "reply before the kernel's sync ended",
        "kernel's sync failed",
        "another kernel's event",
    ],
)
def test_a_reply_counts_only_after_a_write_and_its_finished_sync(lines: list[str], durable: bool) -> None:
    assert order("\n".join(lines), PORT) == Order(1, int(durable))


def test_a_sync_that_was_interrupted_counts_where_it_ended() -> None:
    begun = "12 fdatasync(7</var/data/x.db-wal> <unfinished ...>"
    ended = "12 <... fdatasync resumed>)             = 0"
    assert order("\n".join([ASKED, WRITTEN, begun, ended, ANSWERED]), PORT) == Order(1, 1)
    assert order("\n".join([ASKED, WRITTEN, begun, ANSWERED, ended]), PORT) == Order(1, 0)
    # So does a read: the request is there when it has ended.
    half = ASKED.partition(', "PO"')[0] + ",  <unfinished ...>"
    rest = '11 <... recvfrom resumed>"PO"..., 65536, 0, NULL, NULL) = 161'
    assert order("\n".join([half, WRITTEN, SYNCED, rest, ANSWERED]), PORT) == Order(1, 0)


def test_an_answer_in_two_parts_is_one_answer_and_its_first_part_counts() -> None:
    assert order("\n".join([ASKED, WRITTEN, SYNCED, ANSWERED, ANSWERED]), PORT) == Order(1, 1)
    assert order("\n".join([ASKED, ANSWERED, WRITTEN, SYNCED, ANSWERED]), PORT) == Order(1, 0)


def test_calls_follow_each_other() -> None:
    good, bad = [ASKED, WRITTEN, SYNCED, ANSWERED], [ASKED, WRITTEN, ANSWERED]
    assert order("\n".join(good + bad + good), PORT) == Order(3, 2)


def test_only_files_and_this_servers_clients_matter() -> None:
    trace = [
        f'11 sendto({DATABASE}, "B\\0"..., 120, MSG_NOSIGNAL, NULL, 0) = 120',
        '12 write(4<anon_inode:[eventfd]>, "\\1"..., 8) = 8',
        '12 write(1</dev/null>, "x", 1) = 1',
        '12 write(8<UNIX-STREAM:[1->2,"/run/x.sock"]>, "x", 1) = 1',
        f"11 recvfrom({CLIENT}, 0x7f, 65536, 0, NULL, NULL) = -1 EAGAIN (Resource temporarily unavailable)",
        '11 read(9<TCP:[127.0.0.1:18000->127.0.0.1:8000]>, "HT"..., 100) = 100',
        "11 +++ exited with 0 +++",
        WRITTEN,
    ]
    assert list(events("\n".join(trace), PORT)) == [(Event.WRITTEN, "/var/data/x.db-wal")]
