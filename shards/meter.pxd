cimport cython
from actord.measures cimport Histogram
from actord.shards.call cimport Call
from actord.shards.hot cimport HotActors

cdef class Meter:
    cdef public Histogram call, queue, commit_wait, batch_write, fsync, batch_calls
    cdef public long long replayed
    cdef public object refused, slow, tracing, watch
    cdef public HotActors hot
    cdef public double _since
    cdef public object _deepest
    @cython.locals(call=Call, now=double, waited=double, spent=double, total=double, arrived=double, at=Py_ssize_t, slow=double, first=double, times=list, queue=list, whole=list, ended=double, started=double, queued=double, took=double, wait=double)
    cpdef left(self, list calls)
    @cython.locals(call=Call, now=double, wait=Histogram)
    cpdef durable(self, double submitted, list calls)
