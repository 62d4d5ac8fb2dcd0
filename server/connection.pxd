cimport cython
from actord.server.exchange cimport Exchange, PlainExchange
from actord.server.heads cimport Head
from actord.server.http cimport RequestParser
from actord.shards.link cimport Link

cdef class Connection:
    cdef object __weakref__
    cdef public bint _active, _flush_due, _held, deaf, ended, eof, proxied, simple, writable
    cdef public object _http, access, server, queue, transport, upgrade, upload, write, _phase, table, call_deadline
    cdef public object peer, scheme, timing
    cdef public dict plain
    cdef public long long _pipeline, _receiving, _unsent, _written, received, sent
    cdef public double _since
    cdef public RequestParser parser
    @cython.locals(parser=RequestParser)
    cpdef data_received(self, data)
    @cython.locals(head=Head, link=Link, exchange=Exchange)
    cpdef _begin(self, tuple request)
    cpdef answered(self)
    @cython.locals(exchange=Exchange)
    cpdef _flush(self)
    cpdef send(self, data)
    cpdef hold(self)
    cpdef stop_listening(self)
    cpdef _count_receiving(self, long long size)
