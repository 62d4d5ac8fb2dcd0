from actord.shards.link cimport Link, Waiter

cdef class Exchange(Waiter):
    cdef public bytes answer
    cdef public Link link
    cdef public object connection, id, right, close, head_only, keep_alive_10, no_store
    cpdef forget(self)

cdef class PlainExchange(Exchange):
    cpdef on_reply(self, status, body, head)
