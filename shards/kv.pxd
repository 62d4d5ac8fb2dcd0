cimport cython
from actord.shards.call cimport Call
from actord.storage.api cimport Batch

cdef class KV:
    cdef public object _act, actor_id, used_sql
    cdef public bint _loaded, _complete
    cdef public long long _size
    cdef public dict _cache
    @cython.locals(turn=Call)
    cpdef Call turn(self)
    @cython.locals(writes=dict)
    cpdef _read(self, Call turn, key)
    cpdef _committed(self, key)
    @cython.locals(writes=dict, cache=dict, open_writes=dict)
    cpdef join(self, Call turn, Batch batch)
    cpdef ensure_id(self, Batch batch)
    cpdef known_id(self)

cpdef _checked(key)
