cimport cython
from actord.shards.call cimport Call
from actord.shards.gate cimport OutputGate
from actord.shards.meter cimport Meter
from actord.storage.api cimport Batch

cdef class GroupCommitter:
    cdef public object _store, _flusher, _on_full, _on_broken, _attended, on_alarms, broken, _pausing
    cdef public OutputGate _gate
    cdef public Meter meter
    cdef public Batch batch
    cdef public list held, _in_flight, attending
    cdef public dict _alarms
    cdef public long long durable_seq
    cdef public double _submitted
    cdef public bint _submitting, _paused
    cpdef hold(self, Call call, long long seq)
    cpdef kick(self)
    cpdef bint _close(self) except *
    @cython.locals(batch=Batch, held=list, began=double, now=double)
    cpdef _commit(self)
    @cython.locals(done=list, telling=list)
    cpdef _flushed(self, error)
    cpdef break_off(self, error)
