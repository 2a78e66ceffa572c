// Trains a graph that holds its own training step, such as lenet.gw of //examples:lenet, on
// Fashion-MNIST. The program knows nothing of the model but the names of its inputs and outputs.
//
//   train_lenet STEP TRAINED [EPOCHS [BATCH [THREADS [FOLDER]]]]
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "fashion_mnist.h"
#include "gradweave/frontend/c/gradweave.h"

static int fail(void) {
  fprintf(stderr, "train_lenet: %s\n", gw_last_error());
  return 1;
}

static double seconds(void) {
  struct timespec now;
  timespec_get(&now, TIME_UTC);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

// Returns the only element of a tensor.
static double number(const gw_tensor* tensor) {
  const void* data = gw_tensor_data(tensor);
  switch (gw_tensor_dtype(tensor)) {
    case GW_FLOAT32:
      return *(const float*)data;
    case GW_FLOAT64:
      return *(const double*)data;
    case GW_INT32:
      return *(const int32_t*)data;
    case GW_INT64:
      return (double)*(const int64_t*)data;
    default:
      return 0;
  }
}

// The run for batches of one size.
typedef struct Step {
  gw_run* run;
  const gw_tensor* loss;
  const gw_tensor* correct;
} Step;

// Prepares a training step on `batch` rows of the images and labels.
static int prepare(gw_session* session, const gw_tensor* images, const gw_tensor* labels, int64_t batch, Step* step) {
  const gw_feed tables[] = {{"image", images}, {"label", labels}};
  const char* const fetches[] = {"loss", "correct", "train_step"};
  if (gw_session_prepare_rows(session, tables, 2, batch, fetches, 3, &step->run) != GW_OK) return fail();
  if (gw_run_result(step->run, 0, &step->loss) != GW_OK) return fail();
  if (gw_run_result(step->run, 1, &step->correct) != GW_OK) return fail();
  return 0;
}

static int train(gw_session* session, const gw_tensor* images, const gw_tensor* labels, int64_t samples, int epochs,
                 int64_t batch) {
  // The last batch of an epoch may be smaller.
  Step whole = {0}, rest = {0};
  int64_t* rows = malloc((size_t)batch * sizeof(int64_t));
  int code = rows == NULL;
  if (code == 0 && samples >= batch) code = prepare(session, images, labels, batch, &whole);
  if (code == 0 && samples % batch > 0) code = prepare(session, images, labels, samples % batch, &rest);
  for (int epoch = 0; code == 0 && epoch < epochs; ++epoch) {
    double loss = 0, correct = 0;
    const double start = seconds();
    for (int64_t first = 0; code == 0 && first < samples; first += batch) {
      const int64_t count = samples - first < batch ? samples - first : batch;
      const Step* step = count == batch ? &whole : &rest;
      for (int64_t i = 0; i < count; ++i) rows[i] = first + i;
      if (gw_run_set_rows(step->run, rows, (size_t)count) != GW_OK || gw_run_execute(step->run) != GW_OK) code = fail();
      if (code == 0) loss += number(step->loss) * (double)count;
      if (code == 0) correct += number(step->correct);
    }
    if (code == 0) {
      printf("epoch %d: loss %.4f, train acc %.4f, %.1f examples/sec\n", epoch + 1, loss / (double)samples,
             correct / (double)samples, (double)samples / (seconds() - start));
    }
  }
  gw_run_destroy(whole.run);
  gw_run_destroy(rest.run);
  free(rows);
  return code;
}

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: train_lenet STEP TRAINED [EPOCHS [BATCH [THREADS [FOLDER]]]]\n");
    return 2;
  }
  const int epochs = argc > 3 ? atoi(argv[3]) : 10;
  const int64_t batch = argc > 4 ? atoll(argv[4]) : 256;
  const gw_session_options options = {.threads = argc > 5 ? atoi(argv[5]) : 0};
  const char* folder = argc > 6 ? argv[6] : FASHION_MNIST_FOLDER;
  if (epochs < 1 || batch < 1 || batch > 1000000) {
    fprintf(stderr, "train_lenet: EPOCHS has to be at least 1, and BATCH in [1, 1000000]\n");
    return 1;
  }
  int64_t samples = 0, label_count = 0;
  unsigned char* pixels = read_images(folder, "train-images-idx3-ubyte", &samples);
  unsigned char* classes = read_labels(folder, "train-labels-idx1-ubyte", &label_count);
  int code = pixels == NULL || classes == NULL;
  if (code == 0 && label_count != samples) {
    fprintf(stderr, "train_lenet: %s has not a label for each image\n", folder);
    code = 1;
  }

  // The images are used where they are. Labels become int32.
  gw_model* model = NULL;
  gw_session* session = NULL;
  gw_tensor* images = NULL;
  gw_tensor* labels = NULL;
  const int64_t sizes[] = {samples, 1, IMAGE_SIDE, IMAGE_SIDE};
  if (code == 0 &&
      (gw_model_load(argv[1], NULL, &model) != GW_OK || gw_session_create(model, &options, &session) != GW_OK ||
       gw_tensor_view(GW_UINT8, 4, sizes, pixels, NULL, NULL, &images) != GW_OK ||
       gw_tensor_create(GW_INT32, 1, sizes, &labels) != GW_OK)) {
    code = fail();
  }
  for (int64_t i = 0; code == 0 && i < samples; ++i) ((int32_t*)gw_tensor_data(labels))[i] = classes[i];
  if (code == 0) code = train(session, images, labels, samples, epochs, batch);
  if (code == 0 && gw_session_save(session, argv[2]) != GW_OK) code = fail();

  gw_tensor_destroy(labels);
  gw_tensor_destroy(images);
  gw_session_destroy(session);
  gw_model_destroy(model);
  free(classes);
  free(pixels);
  return code;
}
