"""What the environment of a test with //tests/files:refusal has to hold."""

# ExpectRefused limits the memory of the process. A thread that OpenBLAS or a session has just
# started takes 64 MiB for a heap of its own at its first allocation. That may come after the limit
# is set, and then nothing is left for the call. So OpenBLAS starts no thread, and all threads share
# one heap.
REFUSAL_ENV = {
    "MALLOC_ARENA_MAX": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
