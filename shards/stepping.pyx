"""``stepping.py`` for compiled builds: the same, by the C interface of coroutines, which needs no generator.

``PyIter_Send`` says without an exception that a coroutine has returned. What is left of a turn that awaits something is
a ``Rest``, which takes the stepper's place: ``send`` and ``throw`` return ENDED at its end.
"""

from cpython.contextvars cimport PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit, PyContextVar_Set
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.string cimport memcpy, memset

from actord.shards.activation cimport Activation
from actord.shards.blackbox import METHOD_BYTES, _LAYOUT, private_box
from actord.shards.call import current_turn
from actord.shards.call cimport Call, Lifecycle, Work

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(PyObject* iter, PyObject* arg, PyObject** result) except PYGEN_ERROR
    bint PyCoro_CheckExact(object)

ENDED = object()
cdef object _ENDED = ENDED
cdef object _current_turn = current_turn
cdef Py_ssize_t METHOD = METHOD_BYTES, LABEL = _LAYOUT.size - METHOD_BYTES
Stepper = object


async def _nothing():
    pass

cdef object _own = _nothing()
cdef object _OWN = type(_own)  # of compiled coroutines
_own.close()


cdef class Rest:
    cdef Stepping stepping
    cdef object coroutine

    def send(self, value):
        cdef PyObject* out = NULL
        cdef PySendResult how = PyIter_Send(<PyObject*>self.coroutine, <PyObject*>value, &out)
        result = <object>out
        Py_DECREF(result)
        if how == PYGEN_NEXT:
            return result
        self.stepping.result = result
        return _ENDED

    def throw(self, error):
        try:
            return self.coroutine.throw(error)
        except StopIteration as end:
            self.stepping.result = end.value
            return _ENDED


cdef class Stepping:
    def __init__(self):
        self.box = private_box()
        self.before_turn = None
        self.result = None

    @property
    def box(self):
        return self._box

    @box.setter
    def box(self, box):
        self._box = box
        self._view = box

    cdef int _mark(self, bytes method, bytes label) except -1:
        """``blackbox.mark``: zeros fill what they leave."""
        cdef unsigned char* at = &self._view[0]
        cdef Py_ssize_t size = min(len(method), METHOD), room = min(len(label), LABEL)
        memset(at + size, 0, METHOD - size)
        memcpy(at, <const char*>method, size)
        memcpy(at + METHOD, <const char*>label, room)
        memset(at + METHOD + room, 0, LABEL - room)
        return 0

    cpdef begin(self, Call call):
        self.context = context = PyContext_CopyCurrent()
        PyContext_Enter(context)
        try:
            return self._step(call)
        finally:
            PyContext_Exit(context)

    cdef _step(self, Call call):
        cdef Activation act = call.act
        cdef Work method = call.method
        cdef PyObject* out = NULL
        cdef PySendResult how
        PyContextVar_Set(_current_turn, call)
        if self.before_turn is not None:
            self.before_turn(call)
        self._mark(method.label, act.label)
        try:
            if type(method) is Lifecycle:
                result = (<Lifecycle>method).run(call)
            elif call.kwargs:
                result = method.function(act.instance, *call.args, **call.kwargs)
            elif not call.args:
                result = method.function(act.instance)
            elif len(call.args) == 1:
                result = method.function(act.instance, call.args[0])
            else:
                result = method.function(act.instance, *call.args)
        except StopIteration as error:
            raise RuntimeError("the method raised StopIteration") from error
        if PyCoro_CheckExact(result) or type(result) is _OWN:
            how = PyIter_Send(<PyObject*>result, <PyObject*>None, &out)
            value = <object>out
            Py_DECREF(value)
            if how == PYGEN_NEXT:
                self._rest = rest = Rest.__new__(Rest)
                (<Rest>rest).stepping = self
                (<Rest>rest).coroutine = result
                return value
            self.result = value
        else:
            self.result = result
        return _ENDED

    cpdef leave(self):
        rest, self._rest = self._rest, None
        return rest
