cdef class Histogram:
    cdef public tuple bounds
    cdef public list counts
    cdef public double sum
    cpdef take(self, double value)
