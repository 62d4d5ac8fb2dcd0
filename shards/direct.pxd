cimport cython
from actord.shards.call cimport Call
from actord.shards.dispatch cimport Dispatcher
from actord.shards.intake cimport Connection

cdef class DirectDoor:
    cdef public Dispatcher dispatcher
    cdef public object http, epoch, ticket, _made, _begun_path
    cdef public set links
    cdef public bint held
    cdef public long long frame_bytes, receiving, waiting

cdef class DirectConnection(Connection):
    cdef public DirectDoor _door
    cdef public bint _draining
    cdef public long long _held
    cdef public list _sizes
    cdef public object _begun_path, _timer
    @cython.locals(door=DirectDoor, dispatcher=Dispatcher)
    cpdef _take(self, list frames)
    cpdef _count(self, id_, long long size)
