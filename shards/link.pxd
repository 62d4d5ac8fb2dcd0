cimport cython
from actord.shards.shedding cimport Shedding
from actord.shards.wire cimport BatchReader

cdef class Waiter:
    cdef public object frame
    cpdef on_reply(self, status, body, head)

cdef class Link:
    cdef object __weakref__
    cdef public object path, _caller, _begun_path, _begun, _on_ready, _on_down, _loop, _abandoned, relay, _reconnect
    cdef public object facts, _transport
    cdef public list _free, _later, _kept, _out
    cdef public dict _waiting, _streams
    cdef public long long _bytes, resent, _seen
    cdef public Shedding shed
    cdef public bint _closed, _greeted, ready, _up, _leaving, _mute, _garbled
    cdef public double _moving
    cdef public BatchReader _reader
    @cython.locals(waiting=dict, free=list, waiter=Waiter)
    cpdef data_received(self, data)
    cpdef _flush_soon(self)
    cpdef _flush(self)
    cpdef _release(self, id_)
