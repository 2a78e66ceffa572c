"""The licences of the libraries whose code is in what is distributed."""

# Libraries whose code is inside: from headers, and with --config=portable from archives too.
LICENSES = {
    "abseil": "/usr/share/doc/libabsl-dev/copyright",
    "gcc": "/usr/share/doc/libgcc-s1/copyright",
    "highway": "/usr/share/doc/libhwy-dev/copyright",
    "minizip": "/usr/share/doc/libminizip-dev/copyright",
    "libpng": "/usr/share/doc/libpng-dev/copyright",
    "openblas": "/usr/share/doc/libopenblas-dev/copyright",
    "protobuf": "/usr/share/doc/libprotobuf-dev/copyright",
    "zlib": "/usr/share/doc/zlib1g-dev/copyright",
}
