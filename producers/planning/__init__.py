"""Planning: looking ahead, changing nothing: whom a broadcast would reach, what to ask for."""
