cpdef tuple route(str method, str target)
