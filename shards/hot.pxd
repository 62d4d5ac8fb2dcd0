cimport cython
from actord.shards.call cimport Call
cdef class HotActors:
    cdef public object _now, recent, _current, _before
    cdef public long long _stride, _skip, _seen, _taken
    @cython.locals(call=Call, count=long, at=long)
    cpdef note(self, list calls, double left)
