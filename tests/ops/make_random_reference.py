"""Prints the random numbers that these tests have: tests/ops/random_golden_test.cc,
runtime/kernel/philox_test.cc and frontend/dataset_test.cc.

    apt-get install python3-numpy
    /usr/bin/python3 tests/ops/make_random_reference.py

Everything is written from the papers that the headers cite, with Python's integers and
mathematical functions. Uniform numbers are rounded as the headers say, so they have the same bits.
"""

import math
import statistics
import zlib

import numpy as np

MASK32, MASK64 = 2**32 - 1, 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def philox(counter, key):
    """Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & MASK32, (k1 + 0xBB67AE85) & MASK32
    return [c0, c1, c2, c3]


# The known answers of Random123 (examples/kat_vectors).
assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
assert philox([MASK32] * 4, [MASK32] * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
assert philox([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0]) == [
    0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def finalize(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK64
    return x ^ (x >> 31)


def split_mix(x):
    return finalize((x + GOLDEN) & MASK64)


def key_of(session_seed, node_seed):
    mixed = split_mix(split_mix(session_seed) ^ node_seed)
    return [mixed & MASK32, mixed >> 32]


def words(count, session_seed, node_seed, run):
    result, key = [], key_of(session_seed, node_seed)
    for block in range(-(-count // 4)):
        result += philox([block & MASK32, block >> 32, run & MASK32, run >> 32], key)
    return result[:count]


def units(count, dtype, *seeds):
    """Numbers in [0, 1) with 24 or 53 bits."""
    if dtype == np.float32:
        return [(word >> 8) * 2.0**-24 for word in words(count, *seeds)]
    pairs = words(2 * count, *seeds)
    return [((high << 32 | low) >> 11) * 2.0**-53 for high, low in zip(pairs[::2], pairs[1::2])]


def uniform(count, low, high, dtype, *seeds):
    first, width = dtype(low), dtype(high - low)
    return [float(dtype(first + dtype(width * dtype(u)))) for u in units(count, dtype, *seeds)]


def normal(count, mean, deviation, dtype, *seeds):
    """Box and Muller (1958)."""
    u, numbers = units(count + count % 2, dtype, *seeds), []
    for first, second in zip(u[::2], u[1::2]):
        radius = math.sqrt(-2 * math.log(1 - first))
        numbers += [mean + deviation * radius * f(2 * math.pi * second) for f in (math.cos, math.sin)]
    return numbers[:count]


def show(name, numbers, digits=17):
    print("%s {%s}" % (name, ", ".join("%.*g" % (digits, number) for number in numbers)))


print("key", ["0x%08x" % word for word in key_of(7, 3) + key_of(3, 7)])

# Session seed 7, node seed 3, run 1, then run 2^32 + 5; 4099 elements end within a block.
for dtype, name, digits in [(np.float32, "float32", 9), (np.float64, "float64", 17)]:
    for run in (1, 2**32 + 5):
        for op, make, parameters in [("RandomUniform", uniform, (-1, 2)), ("RandomNormal", normal, (1, 2))]:
            numbers = make(4099, *parameters, dtype, 7, 3, run)
            show("%s %s run %d" % (op, name, run), numbers[:4] + numbers[-3:], digits)
            if make is uniform:
                print("crc32 0x%08x" % zlib.crc32(np.array(numbers, dtype).tobytes()))

# Dropout of ones: what is kept becomes 1/(1 - rate).
kept = [u >= 0.25 for u in units(64, np.float32, 7, 3, 1)]
print("Dropout 0x%x" % sum(bit << i for i, bit in enumerate(kept)))


# Initial values are run 0, and the first random op of a graph has seed 1.
def initial_uniform(bound, count=15):
    return uniform(count, -bound, bound, np.float64, 7, 1, 0)


def initial_normal(deviation, count=15, mean=0):
    return normal(count, mean, deviation, np.float64, 7, 1, 0)


# The shape is [3, 5], so fan_in is 3 and fan_out 5.
def ends(numbers):
    return [numbers[0], numbers[1], numbers[14]]


edge = math.erf(math.sqrt(2))
for name, numbers in {
        "XavierUniform": initial_uniform(math.sqrt(6 / 8)),
        "XavierNormal": initial_normal(math.sqrt(2 / 8)),
        "KaimingUniform": initial_uniform(math.sqrt(2) * math.sqrt(3 / 3)),
        "KaimingNormal kOut": initial_normal(math.sqrt(2) / math.sqrt(5)),
        "LeCunUniform": initial_uniform(math.sqrt(3 / 3)),
        "LeCunNormal": initial_normal(math.sqrt(1 / 3)),
        "Uniform": initial_uniform(0.05),
        "Normal": initial_normal(0.05),
        "TruncatedNormal 1 0.5": [1 + 0.5 * statistics.NormalDist().inv_cdf((u + 1) / 2)
                                  for u in initial_uniform(edge)],
}.items():
    show(name, ends(numbers))


def orthonormal(n, k, numbers):
    """Householder's reflections of a triangular normal matrix (Stewart, 1980)."""
    x = np.tril(np.array(numbers).reshape(n, k))
    q = np.eye(n, k)
    signs = []
    for j in reversed(range(k)):
        v = x[:, j].copy()
        sign = -1 if v[j] < 0 else 1
        v[j] += sign * np.linalg.norm(x[:, j])
        q -= 2 * np.outer(v, v @ q) / (v @ v)
        signs.insert(0, -sign)
    return q * np.array(signs)


show("Orthogonal", ends(orthonormal(5, 3, initial_normal(1)).T.reshape(-1)))


class Mersenne:
    """MT19937-64 (Nishimura, "Tables of 64-bit Mersenne twisters", 2000)."""

    def __init__(self, seed):
        self.state, self.index = [seed & MASK64], 312
        for i in range(1, 312):
            last = self.state[-1]
            self.state.append((6364136223846793005 * (last ^ (last >> 62)) + i) & MASK64)

    def next(self):
        if self.index == 312:
            for i in range(312):
                x = (self.state[i] & 0xFFFFFFFF80000000) | (self.state[(i + 1) % 312] & 0x7FFFFFFF)
                self.state[i] = self.state[(i + 156) % 312] ^ (x >> 1) ^ (0xB5026F5AA96619E9 if x & 1 else 0)
            self.index = 0
        x = self.state[self.index]
        self.index += 1
        x ^= (x >> 29) & 0x5555555555555555
        x ^= (x << 17) & 0x71D67FFFEDA60000
        x ^= (x << 37) & 0xFFF7EEE000000000
        return x ^ (x >> 43)


# The standard (C++, rand.predef) gives the number 10,000 of the default seed.
twister = Mersenne(5489)
for _ in range(9999):
    twister.next()
assert twister.next() == 9981545732273789042


def shuffled(size, seed, epoch):
    """Fisher and Yates."""
    twister, order = Mersenne(seed * GOLDEN + epoch), list(range(size))
    for i in range(size - 1, 0, -1):
        j = twister.next() * (i + 1) >> 64
        order[i], order[j] = order[j], order[i]
    return order


print("order", shuffled(12, 1, 0), shuffled(12, 1, 1), shuffled(12, 2**63, 5))
print("split", sorted(shuffled(12, 3, 0)[:4]))


def sample_random(seed, epoch, sample):
    state = (finalize((finalize(seed) + epoch) & MASK64) + sample) & MASK64
    while True:
        state = (state + GOLDEN) & MASK64
        yield finalize(state)


numbers = sample_random(5, 2, 9)
print("words", ["0x%x" % next(numbers) for _ in range(3)])


def sorted_order(lengths, batch_size, seed, epoch):
    """Batches of sequences of like lengths, in random order; a smaller batch stays last."""
    order = sorted(shuffled(len(lengths), seed, epoch), key=lambda sample: lengths[sample])
    batches = [order[i:i + batch_size] for i in range(0, len(order), batch_size)]
    numbers = sample_random(seed, epoch, -1)
    for i in range(len(order) // batch_size, 1, -1):
        j = next(numbers) * i >> 64
        batches[i - 1], batches[j] = batches[j], batches[i - 1]
    return batches


print("sequences", sorted_order([4, 1, 3, 2, 4, 1, 2, 3, 1, 4, 2], 2, 6, 1))
