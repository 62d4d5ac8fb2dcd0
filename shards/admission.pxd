from actord.shards.call cimport Call
cdef class Admission:
    cdef public object _ready, fullness, on_shed, on_excess
    cdef public long long _bound, most, _room, refused
    cdef public double _target, shed, _late_since, _told, _busy, _cost, _steered
    cdef public bint crowded
    cdef public Call _probe
    cdef public tuple _counted, _lately, _before
    cpdef look(self, double now, long long waiting)
    cpdef _count(self, double now)
