cdef class Shedding:
    cdef public bint on
    cdef public object on_ask
    cdef public double share, _until
    cdef public dict _full
