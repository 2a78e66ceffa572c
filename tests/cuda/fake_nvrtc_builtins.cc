// The built-in functions of the fake NVRTC: none.
