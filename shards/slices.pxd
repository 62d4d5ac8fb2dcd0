from actord.shards.call cimport Call
cdef class Slices:
    cdef public Call last
    cdef public long names
    cdef public bint short
    cdef public double _company, _rested, _full
    cdef public object on_full
    cpdef bint goes_on(self, double now, double end) except *
    cpdef ended(self, double now, bint more)
