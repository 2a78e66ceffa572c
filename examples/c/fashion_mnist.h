// Reads the files of Fashion-MNIST, plain or .gz, for the examples in C.
#ifndef GRADWEAVE_EXAMPLES_C_FASHION_MNIST_H_
#define GRADWEAVE_EXAMPLES_C_FASHION_MNIST_H_

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

#define FASHION_MNIST_FOLDER "/usr/share/datasets/fashion-mnist"
enum { IMAGE_SIDE = 28, IMAGE_PIXELS = IMAGE_SIDE * IMAGE_SIDE };

// Returns the bytes of "<folder>/<name>", or of the same with ".gz", whose samples have
// sample_bytes each, and sets *samples. Prints why and returns NULL if they cannot be read. The
// caller frees the bytes.
static inline unsigned char* read_idx(const char* folder, const char* name, int axes, int64_t sample_bytes,
                                      int64_t* samples) {
  char path[4096];
  snprintf(path, sizeof(path), "%s/%s", folder, name);
  gzFile file = gzopen(path, "rb");
  if (file == NULL) {
    snprintf(path, sizeof(path), "%s/%s.gz", folder, name);
    file = gzopen(path, "rb");
  }
  if (file == NULL) {
    fprintf(stderr, "%s: the file cannot be opened\n", path);
    return NULL;
  }
  // The header: 0, 0, 8 for bytes, the number of axes, and each axis as four bytes, the highest
  // first.
  unsigned char header[16];
  const int header_bytes = 4 + 4 * axes;
  unsigned char* bytes = NULL;
  if (gzread(file, header, (unsigned)header_bytes) == header_bytes && header[2] == 8 && header[3] == axes) {
    *samples = ((int64_t)header[4] << 24) | (header[5] << 16) | (header[6] << 8) | header[7];
    const int64_t total = *samples * sample_bytes;
    // One sample at least, so that malloc does not return NULL.
    if (total <= INT32_MAX) bytes = malloc((size_t)(total > 0 ? total : sample_bytes));
    if (bytes != NULL && gzread(file, bytes, (unsigned)total) != total) {
      free(bytes);
      bytes = NULL;
    }
  }
  gzclose(file);
  if (bytes == NULL) fprintf(stderr, "%s: the file is truncated or of another kind\n", path);
  return bytes;
}

// Images are IMAGE_PIXELS bytes each, and labels one byte.
static inline unsigned char* read_images(const char* folder, const char* name, int64_t* samples) {
  return read_idx(folder, name, 3, IMAGE_PIXELS, samples);
}
static inline unsigned char* read_labels(const char* folder, const char* name, int64_t* samples) {
  return read_idx(folder, name, 1, 1, samples);
}

#endif  // GRADWEAVE_EXAMPLES_C_FASHION_MNIST_H_
