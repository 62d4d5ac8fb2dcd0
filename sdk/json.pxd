cpdef dumps(value)
