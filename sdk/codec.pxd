cpdef bytes encode(value)
cpdef decode(data)
