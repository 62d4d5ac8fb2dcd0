cimport cython
from actord.shards.activation cimport Activation, Host
from actord.shards.admission cimport Admission
from actord.shards.call cimport Call, Sink
from actord.shards.gate cimport OutputGate
from actord.shards.intake cimport Connection
from actord.shards.registry cimport Method
from actord.shards.turns cimport TurnRunner

cdef class Dispatcher:
    cdef public object _program, _settings, _evictor, _pool, refused, damaged, waits, events, front_door
    cdef public object body_bytes, leaving, left, awaited, _document, key_rules, facts
    cdef public TurnRunner _runner
    cdef public Admission _admission
    cdef public OutputGate _gate
    cdef public dict _gone, hosts, exposed
    cdef public list shard_of
    cdef public set connections
    @cython.locals(host=Host, method=Method)
    cpdef call(self, Sink sink, frame, double now)
    @cython.locals(runner=TurnRunner, act=Activation, call=Call)
    cpdef Call _admit(self, Sink sink, id_, begun, Host host, name, Method method, tuple args, dict kwargs, long flags, deadline, double now, dict calls)
    cpdef Activation _activate(self, Host host, name)
