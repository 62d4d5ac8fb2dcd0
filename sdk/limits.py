"""Every fixed limit in one place, the unit in the name. What an operator may change is in ``settings``."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

NAME_BYTES = 512
TYPE_CHARS = 32
STORAGE_KEY_BYTES = 2048
STORAGE_RESERVED_PREFIX = "__actord_"
VALUE_BYTES = 2 * MIB
KEY_CHARS = 255  # an idempotency key
SQL_DATABASE_BYTES = 1024 * MIB
SQL_VALUE_BYTES = 2 * MIB  # one bound value
SQL_LENGTH_BYTES = 16 * MIB  # one value that a statement makes, one row
SQL_STATEMENT_BYTES = 1 * MIB
SQL_TURN_BYTES = 256 * MIB  # what one turn may change; and how much memory one statement may take
LIST_DEFAULT = 128
LIST_MAX = 1000
EVENT_BYTES = 64 * KIB  # the data of one emitted event, as JSON
# A larger number is no time in seconds (the year 5138) but one in milliseconds.
ALARM_EPOCH_SECONDS_MAX = 100_000_000_000

# What the sender of a stream on a link may have sent beyond what the receiver has taken; each frame counts as its bytes
# and something for itself. A longer piece goes out in several.
STREAM_WINDOW_BYTES = 256 * KIB
STREAM_PIECE_BYTES = 64 * KIB
STREAM_FRAME_BYTES = 64

SENDS_PER_TURN = 10_000
SENDS_TURN_BYTES = 16 * MIB  # arguments of all messages of one turn; one message takes VALUE_BYTES at most
SEND_DELAY_SECONDS_MAX = 10 * 366 * 86_400  # ten years

# One batch on a link. A frame carries at most one body (10 MiB by default, 64 MiB at most by configuration).
WIRE_BATCH_BYTES = 256 * MIB
BODY_BYTES_MAX = 64 * MIB
# Calls that one link may have open: also the size of its begun map, one byte a call.
LINK_CALLS = 65_536
# Sockets that one link may carry.
LINK_SOCKETS = 65_536
# The begun map of a link: a byte for each call, then eight for each socket.
BEGUN_BYTES = LINK_CALLS + 8 * LINK_SOCKETS
# Bodies that one link may have on their way before calls are refused.
LINK_BYTES = 256 * MIB

# Calls that one client may have open on a direct link to a worker: no more than wait for one instance by default.
DIRECT_CALLS = 1_000
# What a frame of a direct link may have beside its body.
DIRECT_FRAME_BYTES = 64 * KIB

SOCKET_ATTACHMENT_BYTES = 16 * KIB
SOCKET_TAGS = 16
SOCKET_TAG_BYTES = 256
SOCKET_SEND_BYTES = 4 * MIB  # one message from an actor
SOCKET_TURN_BYTES = 64 * MIB  # what one turn may send to sockets; a broadcast counts once
SOCKET_REASON_BYTES = 123  # of a close frame, by RFC 6455
# Messages of one actor's sockets that a front has given to the worker and that are not done yet.
SOCKET_ROOM_WINDOW = 256
# Messages of all sockets of a front that wait for their actors.
SOCKET_QUEUE_TOTAL_BYTES = 128 * MIB

assert LIST_DEFAULT <= LIST_MAX
assert STREAM_PIECE_BYTES + STREAM_FRAME_BYTES < STREAM_WINDOW_BYTES
assert VALUE_BYTES < WIRE_BATCH_BYTES
assert LINK_CALLS % 8 == 0
assert SOCKET_QUEUE_TOTAL_BYTES + SOCKET_TURN_BYTES < WIRE_BATCH_BYTES
assert BODY_BYTES_MAX < LINK_BYTES <= WIRE_BATCH_BYTES
