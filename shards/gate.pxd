cimport cython
from actord.shards.call cimport Call, Sink
from actord.shards.meter cimport Meter

cdef class OutputGate:
    cdef public dict _dirty
    cdef public Meter _meter
    cdef public list _left
    @cython.locals(call=Call, sink=Sink, dirty=dict)
    cpdef release(self, calls)
    @cython.locals(sink=Sink, dirty=dict, left=list)
    cpdef flush(self)
