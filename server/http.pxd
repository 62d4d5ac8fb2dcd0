cimport cython
from actord.server.heads cimport Head, HeadReader

cdef class RequestParser:
    cdef public HeadReader _reader
    cdef public dict _known
    cdef public object _limits, _chunks, _on_body, _sink
    cdef public bytes _data
    cdef public tuple _pending
    cdef public bytearray _body
    cdef public long long _pos, _checked, _body_left, _handed, _head_bytes, _line_bytes
    cdef public bint _continued, has_rest, broken
    @cython.locals(pos=Py_ssize_t, end=Py_ssize_t, eol=Py_ssize_t, rest=Py_ssize_t, stop=Py_ssize_t, length=Py_ssize_t, line=bytes, block=bytes, raw_target=bytes, target=str, head=Head, known=dict, parts=list)
    cpdef next(self, bytes data=*)
    cpdef _continue_body(self, bytes data)
