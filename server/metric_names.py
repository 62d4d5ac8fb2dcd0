"""Every metric of a server: its name, kind, labels and meaning. docs/observability.md shows this table.

Names follow Prometheus: base units (seconds, bytes), ``_total`` for what only grows while a process lives. Each value
has the label ``process`` as well (``worker-0``, ``front-0``, ``supervisor``): a process that is replaced begins at
zero, and a sum over processes would hide that from ``rate``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from actord.measures import SECONDS, SIZES

Kind = Literal["counter", "gauge", "histogram"]


class Metric(NamedTuple):
    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    bounds: tuple[float, ...] = SECONDS


def _counter(name: str, help: str, *labels: str) -> Metric:
    return Metric(name, "counter", labels, help)


def _gauge(name: str, help: str, *labels: str) -> Metric:
    return Metric(name, "gauge", labels, help)


def _histogram(name: str, help: str, *labels: str, bounds: tuple[float, ...] = SECONDS) -> Metric:
    return Metric(name, "histogram", labels, help, bounds)


METRICS = (
    # the processes
    _gauge("actord_build_info", "1, with the versions of actord and Python.", "version", "python"),
    _gauge("actord_up", "1 when the process answered this question, 0 when it is away or stuck."),
    _counter("actord_restarts_total", "Times that the process ended unasked and was started again."),
    _gauge("actord_process_start_time_seconds", "When the process began, in seconds since the epoch."),
    _counter("actord_process_cpu_seconds_total", "CPU time that the process has used, user and system."),
    _gauge("actord_process_resident_memory_bytes", "Resident memory of the process."),
    _gauge("actord_process_open_fds", "File descriptors that the process has open."),
    _histogram(
        "actord_event_loop_lag_seconds",
        "How late a timer of the process's event loop ran, looked at four times a second. Long: something blocks it.",
    ),
    # calls
    _counter(
        "actord_calls_total",
        "Turns that calls, fetches, alarms and socket events have had. outcome: ok; refused, a status of 400 to 499, "
        "as of a user's ActorError; failed, 500 and above.",
        "type",
        "method",
        "outcome",
    ),
    _histogram("actord_call_run_seconds", "How long turns ran, from their begin to their end.", "type", "method"),
    _histogram("actord_call_seconds", "From a call's arrival in its worker until its reply left."),
    _histogram("actord_call_queue_seconds", "How long calls waited until their turn began."),
    _counter(
        "actord_refused_total",
        "Requests and calls that were refused before a turn of them began, by the error's class.",
        "reason",
    ),
    _counter("actord_replayed_calls_total", "Calls that were answered with the stored reply of an earlier run."),
    _counter("actord_resent_calls_total", "Calls that were sent again, to the successor of a worker that was lost."),
    _counter("actord_slow_calls_total", "Calls that took longer than log.slow_call."),
    _gauge("actord_queued_calls", "Calls in the worker whose turn has not begun."),
    _gauge("actord_suspended_turns", "Turns that have begun and wait for something."),
    _gauge("actord_mailbox_depth", "The longest mailbox of any instance in the last 30 to 60 seconds."),
    _gauge("actord_front_door_open", "Requests of the front door that are being served."),
    _counter(
        "actord_front_door_requests_total",
        "Requests that the front door has had. outcome: ok, refused (400 to 499), failed (500 and above), or gone, "
        "when the client went away before. mount is empty for the main program.",
        "mount",
        "outcome",
    ),
    _histogram(
        "actord_front_door_seconds", "From a request's arrival in its worker until the front door was done.", "mount"
    ),
    _gauge("actord_event_streams", "Readers of actors' events."),
    _gauge("actord_direct_connections", "Connections of clients that call the worker themselves (server.direct)."),
    # commits
    _histogram("actord_commit_wait_seconds", "From the end of a turn until the batch that it waits for was durable."),
    _histogram("actord_batch_write_seconds", "How long the rows of a batch took to be written."),
    _histogram("actord_fsync_seconds", "How long the sync of a batch took."),
    _histogram("actord_batch_calls", "Calls whose replies waited for one batch.", bounds=SIZES),
    # instances
    _gauge("actord_instances", "Instances in memory.", "type"),
    _counter("actord_activations_total", "Instances that were brought into memory.", "type"),
    _counter("actord_evictions_total", "Instances that left memory: idle, or for memory.", "reason"),
    _gauge("actord_cache_bytes", "Stored values that instances keep in memory, encoded. Estimated beyond 10,000."),
    _gauge("actord_sql_databases_open", "SQL databases of instances that are kept open."),
    # alarms and messages
    _counter("actord_alarms_fired_total", "Alarms whose handler has succeeded."),
    _counter("actord_alarm_retries_total", "Runs of alarm handlers that failed and are repeated."),
    _counter(
        "actord_alarms_failed_total", "Alarms that have failed for good and are kept (`actord alarms ls --failed`)."
    ),
    _gauge("actord_alarms_running", "Alarms whose handler runs, or waits for its turn."),
    _gauge("actord_alarm_overdue_seconds", "For how long the alarm that waits longest has been due; 0: none is."),
    _histogram("actord_alarm_lag_seconds", "From the time an alarm was due until its handler began."),
    _counter("actord_messages_delivered_total", "Messages between actors that have arrived."),
    _counter("actord_message_retries_total", "Deliveries that their receiver failed on and that are repeated."),
    _counter("actord_messages_parked_total", "Messages that have failed for good (`actord outbox ls --parked`)."),
    _gauge("actord_messages_under_way", "Messages that are being delivered."),
    # storage
    _gauge("actord_shard_up", "1 while the shard is served, 0 when it is damaged or has failed.", "shard"),
    _counter("actord_commits_total", "Commits since the shard was made.", "shard"),
    _gauge("actord_database_bytes", "Size of the shard's database file.", "shard"),
    _gauge("actord_wal_bytes", "The part of the shard's log that is in use.", "shard"),
    _gauge("actord_page_cache_bytes", "Memory of the shard's page cache.", "shard"),
    _counter("actord_checkpoints_total", "Checkpoints of the shard's log.", "shard"),
    _gauge("actord_shard_disk_full", "1 while the shard's disk is full.", "shard"),
    _counter("actord_disk_full_total", "Times that the shard's disk became full.", "shard"),
    # the fronts
    _gauge("actord_connections", "Open connections of clients, WebSockets among them."),
    _counter("actord_accepted_connections_total", "Connections that clients have opened."),
    _gauge("actord_sockets", "Open WebSockets."),
    _counter("actord_received_bytes_total", "Bytes received from clients."),
    _counter("actord_sent_bytes_total", "Bytes sent to clients."),
    _gauge("actord_calls_under_way", "Calls that the front waits for."),
    _gauge("actord_socket_queue_bytes", "Bytes of WebSocket messages that wait for their actors."),
    _gauge("actord_socket_unsent_bytes", "Bytes of WebSocket messages that wait for slow clients."),
)
