cimport cython
from actord.shards.call cimport Call, Sink
from actord.shards.dispatch cimport Dispatcher
from actord.shards.wire cimport BatchReader

cdef class Connection(Sink):
    cdef object __weakref__
    cdef public object blame, outside
    cdef public Dispatcher _dispatcher
    cdef public BatchReader _reader
    cdef public object _transport, _socket_bytes, caller, closed, stopped, _room
    cdef public list _out, _parked
    cdef public dict doors, streams, bodies
    cdef public bint _flush_due
    cpdef data_received(self, data)
    cpdef _take(self, list frames)
    cpdef _cancel(self, id_)
