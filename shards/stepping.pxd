from actord.shards.call cimport Call
cdef class Stepping:
    cdef public object context, before_turn, result
    cdef object _rest, _box
    cdef unsigned char[::1] _view
    cpdef begin(self, Call call)
    cdef int _mark(self, bytes method, bytes label) except -1
    cdef _step(self, Call call)
    cpdef leave(self)
