cdef class Head:
    cdef public bint apart, charset_ok, chunked, content_encoding, deadline_ok, expect_continue, http10, keep_alive
    cdef public bint keyed_call, plain_call, websocket
    cdef public object content_type, deadline, grant, host, idempotency_key, trace
    cdef public list headers
    cdef public long long length, lines
    cpdef Head with_key(self, key, value)

cdef class HeadReader:
    cdef public object _limits, _access
    cdef public dict known
    cpdef Head read(self, bytes version, bytes block)
