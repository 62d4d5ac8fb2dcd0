cimport cython
@cython.locals(crc=cython.ulonglong, mixed=cython.ulonglong)
cpdef long slot_of(str type_, str name) except -1
