cimport cython
cpdef pack_batch(list frames)
cdef class BatchReader:
    cdef public long long _limit, _need
    cdef public bytearray _buffer
    @cython.locals(need=cython.longlong, buffer=bytearray)
    cpdef list feed(self, data)
cpdef list _frames(payload)
