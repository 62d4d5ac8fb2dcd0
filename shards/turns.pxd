cimport cython
from actord.shards.activation cimport Activation
from actord.shards.admission cimport Admission
from actord.shards.call cimport Call, Lifecycle, Work
from actord.shards.committer cimport GroupCommitter
from actord.shards.gate cimport OutputGate
from actord.shards.slices cimport Slices
from actord.shards.stepping cimport Stepping

cdef class TurnRunner(Stepping):
    cdef public object _loop, _env, _ready, _parked, on_bug, _blocking
    cdef public double _call_timeout, _slice_end, _slice_limit, _commit_due
    cdef public OutputGate _gate
    cdef public Lifecycle _initialise, _deactivate
    cdef public Admission admission
    cdef public Slices slices
    cdef public bint _prompt, stopped
    cdef public set tasks
    cdef public dict _touched
    cdef public long long waiting, deepest, suspended, tick
    cdef public Call now_running
    @cython.locals(act=Activation)
    cpdef admit(self, Call call)
    cpdef _make_ready(self, Call call)
    @cython.locals(committer=GroupCommitter, touched=dict)
    cpdef _settle(self, bint commit=*)
    @cython.locals(act=Activation, now=double, remaining=double, limit=double)
    cpdef bint _begin(self, Call call) except *
    cpdef bint _answered_before(self, Call call) except *
    @cython.locals(act=Activation)
    cpdef bint _build(self, Call call) except *
    @cython.locals(act=Activation, now=double, took=double, committer=GroupCommitter)
    cpdef _succeed(self, Call call, value)
    @cython.locals(act=Activation, now=double)
    cpdef _fail(self, Call call, error)
    @cython.locals(act=Activation)
    cpdef _run_out_of_time(self, Call call)
    @cython.locals(committer=GroupCommitter, seq=cython.longlong)
    cpdef _answer(self, Call call)
    cpdef _refuse(self, Call call, error)
    cpdef _next(self, Activation act)
    @cython.locals(call=Call)
    cpdef tuple _run(self, task, double slice_end)
