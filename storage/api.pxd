cdef class Batch:
    cdef public long long seq, replies_at, replies_before
    cdef public dict kv, page_counts, pages, alarms, events, event_logs, replies, outbox, inbox, floors, versions
    cdef public set cleared
    cdef public list actors, expired_replies
