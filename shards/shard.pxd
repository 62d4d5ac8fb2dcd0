from actord.shards.committer cimport GroupCommitter
from actord.shards.gate cimport OutputGate

cdef class Shard:
    cdef public object number, slots, store, epoch, _runner
    cdef public dict floors
    cdef public OutputGate _gate
    cdef public GroupCommitter committer
