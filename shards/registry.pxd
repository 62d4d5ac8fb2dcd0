from actord.shards.call cimport Work
from actord.shards.arguments cimport Binder

cdef class Method(Work):
    cdef public Binder binder

cdef class ActorType:
    cdef public object cls, name, binding, timeout, idle_after, init_timeout, mailbox, has_on_activate
    cdef public object has_on_deactivate, has_alarm, alarm_timeout, alarm_retries, events_kept, events_age
    cdef public object events_public, exposed, send_retries, version, upgrades, web_socket
    cdef public object web_socket_message, web_socket_close, build
    cdef public Method fetch
    cdef public dict methods, _refusals
    cpdef method(self, name)
