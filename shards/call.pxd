cimport cython

cdef class Sink:
    cdef public object begun, sockets
    cdef public dict hosts, calls
    cpdef put(self, Call call)
    cpdef flush(self)

cdef class Work:
    cdef public object name, function, timeout
    cdef public bytes label
    cdef public list times

cdef class Lifecycle(Work):
    cdef public object run

cdef class Call:
    cdef public Sink sink
    cdef public object id, begun, act
    cdef public Work method
    cdef public tuple args
    cdef public dict kwargs
    cdef public long flags
    cdef public object deadline  # a caller names it: any int
    cdef public double queued, started, ended, limit
    cdef public bint cancelled, over, cleared, more
    cdef public object trace, task, timer, alarm, block, once, origin, waits, aborted, status, body, head
    cdef public dict writes
    cdef public list effects
    cdef public long reached
    cpdef succeed(self, value)
    cpdef fail(self, error)
    cpdef leave(self)
