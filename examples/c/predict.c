// Loads a trained model, of Gradweave or ONNX, and classifies a test image of Fashion-MNIST.
//
//   predict MODEL INDEX [FOLDER]
//
// The program feeds the model's first input. It fetches the output "probabilities" if there is one,
// and the first output that has a tensor otherwise.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "fashion_mnist.h"
#include "gradweave/frontend/c/gradweave.h"

static int fail(void) {
  fprintf(stderr, "predict: %s\n", gw_last_error());
  return 1;
}

static const char* const kClasses[] = {"t-shirt", "trouser", "pullover", "dress", "coat",
                                       "sandal",  "shirt",   "sneaker",  "bag",   "ankle boot"};
enum { CLASSES = sizeof(kClasses) / sizeof(kClasses[0]) };

// Prints the inputs and outputs with their types.
static int describe(const gw_model* model) {
  for (gw_kind kind = GW_INPUT; kind <= GW_OUTPUT; ++kind) {
    size_t count = 0;
    if (gw_model_count(model, kind, &count) != GW_OK) return fail();
    for (size_t i = 0; i < count; ++i) {
      gw_description value;
      if (gw_model_describe(model, kind, i, &value) != GW_OK) return fail();
      printf("%s %s", kind == GW_INPUT ? "input " : "output", value.name);
      if (value.is_update) {
        printf(": changes variables\n");
        continue;
      }
      printf(": %s[", gw_dtype_name(value.dtype));
      for (int32_t axis = 0; axis < value.rank; ++axis) printf("%s%s", axis > 0 ? "," : "", value.dimensions[axis]);
      printf("]\n");
    }
  }
  return 0;
}

// Finds the names of the input to feed and of the output to fetch.
static int choose(const gw_model* model, const char** input, const char** output) {
  gw_description value;
  if (gw_model_describe(model, GW_INPUT, 0, &value) != GW_OK) return fail();
  *input = value.name;
  if (gw_model_find(model, GW_OUTPUT, "probabilities", &value) != GW_OK) {
    size_t index = 0;
    do {
      if (gw_model_describe(model, GW_OUTPUT, index++, &value) != GW_OK) return fail();
    } while (value.is_update);
  }
  *output = value.name;
  return 0;
}

// Runs the model on one image and prints what it gives for each class.
static int classify(gw_session* session, const char* input, const char* output, float* pixels) {
  const int64_t sizes[] = {1, 1, IMAGE_SIDE, IMAGE_SIDE};
  gw_tensor* image = NULL;
  gw_tensor* result = NULL;
  if (gw_tensor_view(GW_FLOAT32, 4, sizes, pixels, NULL, NULL, &image) != GW_OK) return fail();
  const gw_feed feeds[] = {{input, image}};
  int code = gw_session_run(session, feeds, 1, &output, 1, &result) == GW_OK ? 0 : fail();
  if (code == 0 && (gw_tensor_dtype(result) != GW_FLOAT32 || gw_tensor_num_bytes(result) != CLASSES * sizeof(float))) {
    fprintf(stderr, "predict: the output '%s' is not %d numbers of float32\n", output, (int)CLASSES);
    code = 1;
  }
  const float* values = gw_tensor_data(result);
  for (int i = 0; code == 0 && i < CLASSES; ++i) printf("%-10s %.9f\n", kClasses[i], values[i]);
  gw_tensor_destroy(result);
  gw_tensor_destroy(image);
  return code;
}

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: predict MODEL INDEX [FOLDER]\n");
    return 2;
  }
  int64_t images = 0;
  unsigned char* bytes = read_images(argc > 3 ? argv[3] : FASHION_MNIST_FOLDER, "t10k-images-idx3-ubyte", &images);
  if (bytes == NULL) return 1;
  const int64_t index = atoll(argv[2]);
  if (index < 0 || index >= images) {
    fprintf(stderr, "predict: INDEX is outside [0, %" PRId64 ")\n", images);
    free(bytes);
    return 1;
  }
  float pixels[IMAGE_PIXELS];
  for (int i = 0; i < IMAGE_PIXELS; ++i) pixels[i] = (float)bytes[index * IMAGE_PIXELS + i] / 255.0f;
  free(bytes);

  gw_model* model = NULL;
  gw_session* session = NULL;
  int code = 0;
  if (gw_model_load(argv[1], NULL, &model) != GW_OK || gw_session_create(model, NULL, &session) != GW_OK) code = fail();
  if (code == 0) code = describe(model);
  const char* input = NULL;
  const char* output = NULL;
  if (code == 0) code = choose(model, &input, &output);
  if (code == 0) code = classify(session, input, output, pixels);
  gw_session_destroy(session);
  gw_model_destroy(model);
  return code;
}
