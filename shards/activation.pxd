from actord.shards.call cimport Call
from actord.shards.kv cimport KV
from actord.shards.registry cimport ActorType
from actord.shards.shard cimport Shard
from actord.storage.api cimport Batch

cdef class Host:
    cdef public ActorType type
    cdef public object sql_pool, idle_after
    cdef public long long mailbox, created, events_kept, events_age_ms
    cdef public dict activations, topics, rooms

cdef class Activation:
    cdef object __weakref__
    cdef public Host host
    cdef public object name, slot, alarm, events, instance, mailbox, keys
    cdef public Shard shard
    cdef public bytes label
    cdef public KV kv
    cdef public bint busy
    cdef public Call turn
    cdef public long long seq, last_used
    cpdef join(self, Call turn, Batch batch)

cdef class ActorContext:
    cdef public object env
    cdef public KV storage
    cdef public Activation _act
    cdef public list _before_first_turn
