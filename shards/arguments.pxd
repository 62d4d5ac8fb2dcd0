cimport cython
cdef class Binder:
    cdef public object label, signature, _from_object, _from_array, _object, _by_position
    cdef public tuple _names
    cdef public list _required
    cdef public bint _plain, _varpos, _varkw
    cdef public dict _variadic
    cpdef tuple from_json(self, body)
    cpdef tuple from_msgpack(self, body)
    cpdef tuple from_pair(self, body)
    @cython.locals(values=tuple)
    cpdef tuple _taken(self, struct)
