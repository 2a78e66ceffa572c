// Gradweave's C interface: loads models of Gradweave and ONNX, runs, trains and saves them. It is
// plain C11, and C++ may include it too.
//
//   gw_model* model = NULL;
//   gw_session* session = NULL;
//   gw_tensor* image = NULL;
//   gw_tensor* probabilities = NULL;
//   const int64_t sizes[] = {1, 1, 28, 28};
//   const char* const fetches[] = {"probabilities"};
//   gw_status status = gw_model_load("lenet.gw", NULL, &model);
//   if (status == GW_OK) status = gw_session_create(model, NULL, &session);
//   if (status == GW_OK) status = gw_tensor_view(GW_FLOAT32, 4, sizes, pixels, NULL, NULL, &image);
//   if (status == GW_OK) {
//     const gw_feed feeds[] = {{"image", image}};
//     status = gw_session_run(session, feeds, 1, fetches, 1, &probabilities);
//   }
//   if (status != GW_OK) fprintf(stderr, "%s\n", gw_last_error());
//
// Errors. Each function that can fail returns a status, and gw_last_error() has the message. A
// pointer that must not be NULL gives GW_INVALID_ARGUMENT, and memory that runs out
// GW_RESOURCE_EXHAUSTED. A function that fails sets handles that it returns through pointers to
// NULL, and does not change structs. A failed call changes nothing, and its handles remain valid,
// unless the function's comment says otherwise.
//
// Ownership. The caller owns a handle that it gets through gw_xxx**, and destroys it with
// gw_xxx_destroy, which does nothing for NULL. Handles may be destroyed in any order: a session
// does not need its model, and a run does not need its session. Tensors share the ownership of
// their elements.
//
// Threads. A session may be used by several threads: its runs wait for each other. Any other handle
// may be used by several threads as long as none of them changes it. Functions that take a pointer
// to a const handle do not change it.
//
// Names, texts and arrays that the library returns belong to the handle that returned them. Sizes
// are outermost first, and elements are in row-major order, without gaps.
#ifndef GRADWEAVE_FRONTEND_C_GRADWEAVE_H_
#define GRADWEAVE_FRONTEND_C_GRADWEAVE_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// The result of a call. gRPC and Abseil use the same numbers.
typedef int32_t gw_status;  // One of these numbers.
enum {
  GW_OK = 0,
  GW_CANCELLED = 1,
  GW_UNKNOWN = 2,
  GW_INVALID_ARGUMENT = 3,  // An argument or a file that is wrong.
  GW_DEADLINE_EXCEEDED = 4,
  GW_NOT_FOUND = 5,  // No file, variable, input or output of that name.
  GW_ALREADY_EXISTS = 6,
  GW_PERMISSION_DENIED = 7,
  GW_RESOURCE_EXHAUSTED = 8,   // Memory ran out, or a limit of memory was reached.
  GW_FAILED_PRECONDITION = 9,  // Not possible in this state, as in a child of fork().
  GW_ABORTED = 10,
  GW_OUT_OF_RANGE = 11,   // Bad data, such as an invalid label.
  GW_UNIMPLEMENTED = 12,  // The file needs a newer Gradweave.
  GW_INTERNAL = 13,       // A fault of Gradweave.
  GW_UNAVAILABLE = 14,    // This machine or build does not have the device.
  GW_DATA_LOSS = 15,
  GW_UNAUTHENTICATED = 16
};

// Returns the message of this thread's last call that returned a status: one line that begins with
// the name of the function, or "" if the call succeeded. The thread's next call overwrites it.
// Never NULL.
const char* gw_last_error(void);
// Returns "OK", "INVALID_ARGUMENT", "NOT_FOUND" and so on. Never NULL.
const char* gw_status_name(gw_status status);
// Returns the library's version: "0.1.0" is major, minor and patch.
const char* gw_version(void);

// Tensors -----------------------------------------------------------------------------------------

// The type of elements. GW_BOOL has a byte for each element, 0 or 1. GW_FLOAT16 is binary16 of IEEE
// 754, and GW_BFLOAT16 the upper half of a float.
typedef int32_t gw_dtype;  // One of these numbers.
enum {
  GW_FLOAT32 = 0,
  GW_FLOAT64 = 1,
  GW_INT32 = 2,
  GW_INT64 = 3,
  GW_UINT8 = 4,
  GW_BOOL = 5,
  GW_FLOAT16 = 6,
  GW_BFLOAT16 = 7,
  GW_INT8 = 8,
  GW_INT16 = 9,
  GW_UINT16 = 10,
  GW_UINT32 = 11,
  GW_UINT64 = 12
};

// Returns the bytes of an element, or 0 for an invalid gw_dtype.
size_t gw_dtype_size(gw_dtype dtype);
// Returns "float32" and so on, or "" for an invalid gw_dtype.
const char* gw_dtype_name(gw_dtype dtype);

// A dense array in host memory.
typedef struct gw_tensor gw_tensor;

// Makes a tensor of zeros. `sizes` has `rank` numbers; it may be NULL if rank is 0.
gw_status gw_tensor_create(gw_dtype dtype, int32_t rank, const int64_t* sizes, gw_tensor** tensor);

// Makes a tensor of the caller's memory, without a copy. `data` needs the alignment of the
// elements; a multiple of 64 is fastest. If `release` is given, the library calls release(context)
// from any thread once nothing uses the memory any more. Without it, the memory has to outlive its
// last use. If the call fails, release is not called.
gw_status gw_tensor_view(gw_dtype dtype, int32_t rank, const int64_t* sizes, void* data, void (*release)(void* context),
                         void* context, gw_tensor** tensor);

// Return the type, sizes and elements of a tensor. For NULL they return GW_FLOAT32, 0, NULL, 0 and
// NULL.
gw_dtype gw_tensor_dtype(const gw_tensor* tensor);
int32_t gw_tensor_rank(const gw_tensor* tensor);
const int64_t* gw_tensor_sizes(const gw_tensor* tensor);
size_t gw_tensor_num_bytes(const gw_tensor* tensor);
// The elements may be written, unless the tensor is a view of read-only memory.
void* gw_tensor_data(const gw_tensor* tensor);

void gw_tensor_destroy(gw_tensor* tensor);

// DLPack (https://dmlc.github.io/dlpack), with which libraries exchange tensors without a copy.
// dlpack.h declares the struct.
struct DLManagedTensor;

// Takes ownership of a DLPack tensor. If the call succeeds, the library calls the deleter once
// nothing uses the elements any more; otherwise the caller keeps the tensor. Returns
// GW_INVALID_ARGUMENT for a tensor that is not in host memory, has gaps or another order of
// elements, or whose elements have no gw_dtype.
gw_status gw_tensor_from_dlpack(struct DLManagedTensor* managed, gw_tensor** tensor);

// Returns a DLPack tensor that shares the elements and keeps them until its deleter is called.
gw_status gw_tensor_to_dlpack(const gw_tensor* tensor, struct DLManagedTensor** managed);

// Models ------------------------------------------------------------------------------------------

// A graph and the values of its variables.
typedef struct gw_model gw_model;

// A value for an input.
typedef struct gw_feed {
  const char* name;
  const gw_tensor* tensor;
} gw_feed;

// The sizes of an input.
typedef struct gw_shape {
  const char* name;
  int32_t rank;
  const int64_t* sizes;  // `rank` numbers; may be NULL if rank is 0.
} gw_shape;

// Options of loading. All zeros are the defaults.
typedef struct gw_load_options {
  int64_t memory_limit;  // Upper limit in bytes for all that loading holds; 0 means 8 GiB.
  // If not 0, the weights file of a Gradweave model is mapped into memory instead of read. It must
  // not change while the model or a session of it exists. gw_model_load_bytes ignores it.
  int32_t map_weights;
  // Only for ONNX files. To become a graph, some files need the value of an input, such as the
  // shape operand of Reshape; some need numbers for sizes that they leave open. The error then
  // names the input, and calls these fields ImportOptions::fixed and ImportOptions::shapes. An
  // input with a fixed value becomes a constant.
  const gw_feed* fixed;
  size_t num_fixed;
  const gw_shape* shapes;
  size_t num_shapes;
} gw_load_options;

// Loads a model file and checks everything in it. The content determines if it is a Gradweave model
// or an ONNX model; docs/onnx.md lists the supported ONNX ops. Inputs, outputs and variables have
// the names of the file, and sizes that the file leaves open stay open. Floating initializers of an
// ONNX file become trainable variables. `options` may be NULL. Returns GW_NOT_FOUND for a missing
// file, GW_INVALID_ARGUMENT for one that is damaged, truncated or not a model, GW_UNIMPLEMENTED for
// one that needs a newer Gradweave or ops that it lacks, GW_FAILED_PRECONDITION for an ONNX file
// that needs `fixed`, and GW_RESOURCE_EXHAUSTED for one that exceeds the memory limit.
gw_status gw_model_load(const char* path, const gw_load_options* options, gw_model** model);

// The same for a file in memory, which may be freed after the call. The weights must be inside of
// the file, as they are for Gradweave models of less than 4 MiB.
gw_status gw_model_load_bytes(const void* bytes, size_t num_bytes, const gw_load_options* options, gw_model** model);

// Saves the model with its values as a Gradweave model. The path always holds one whole model, even
// if the process is killed.
gw_status gw_model_save(const gw_model* model, const char* path);

// Saves outputs of the model, with the nodes that they need, as an ONNX file of opset 17. The file
// appears when it is complete. `outputs` has their names, which the file keeps. If num_outputs is
// 0, saves all outputs except updates; `outputs` may then be NULL. An update gives the new values
// of the variables that it changes: with the output "step", "step/w" for the variable w, which
// becomes an input with a default. Returns GW_NOT_FOUND for an unknown name, GW_UNIMPLEMENTED for
// an op without a form in ONNX, and GW_INVALID_ARGUMENT for no outputs, a repeated name, and a file
// of 2 GiB or more.
gw_status gw_model_save_onnx(const gw_model* model, const char* const* outputs, size_t num_outputs, const char* path);

void gw_model_destroy(gw_model* model);

// The kinds of named parts of a model.
typedef int32_t gw_kind;  // One of these numbers.
enum { GW_INPUT = 0, GW_OUTPUT = 1, GW_VARIABLE = 2 };

// An input, output or variable.
typedef struct gw_description {
  const char* name;
  gw_dtype dtype;
  int32_t rank;
  const int64_t* sizes;           // `rank` numbers; -1 if a run's feeds determine it.
  const char* const* dimensions;  // `rank` texts: "28", "batch", "64*batch".
  int32_t trainable;              // 1 for a variable that training changes.
  // 1 for an output that changes variables, such as a training step. It has no tensor, and rank is
  // 0.
  int32_t is_update;
} gw_description;

// Counts the inputs, outputs or variables. An output that is a list of values counts once for each
// value; their names are "states:0", "states:1" and so on. An update counts once.
gw_status gw_model_count(const gw_model* model, gw_kind kind, size_t* count);
// Describes number `index`, from 0. Inputs and variables are in the order of the graph, outputs are
// sorted by name. The texts are valid until the model is changed or destroyed. Returns
// GW_OUT_OF_RANGE for an invalid index.
gw_status gw_model_describe(const gw_model* model, gw_kind kind, size_t index, gw_description* description);
// Describes the input, output or variable of this name, or returns GW_NOT_FOUND with the existing
// names.
gw_status gw_model_find(const gw_model* model, gw_kind kind, const char* name, gw_description* description);

// Adds the gradients of an output with respect to inputs and variables. They become outputs whose
// names are the prefix and the name: with the prefix "grad/", "grad/image". `loss` is a floating
// output; if it has several elements, their sum is differentiated. If `num_wrt` is 0, adds the
// gradients of all trainable variables; `wrt` may then be NULL. A gradient that does not depend on
// the loss is zeros. Existing sessions do not change. Returns GW_NOT_FOUND for an unknown name,
// GW_ALREADY_EXISTS if an output has one of the new names, and GW_INVALID_ARGUMENT for values
// without a gradient.
gw_status gw_model_add_gradients(gw_model* model, const char* loss, const char* const* wrt, size_t num_wrt,
                                 const char* prefix);

// Sessions ----------------------------------------------------------------------------------------

// Runs a model and keeps the values of its variables.
typedef struct gw_session gw_session;

typedef int32_t gw_choice;  // One of these numbers.
enum { GW_AUTO = 0, GW_NEVER = 1, GW_ALWAYS = 2 };

// Options of a session. All zeros are the defaults.
typedef struct gw_session_options {
  const char* device;     // "cpu", "cuda", "cuda:1", or "best" for the fastest of this machine. NULL means "cpu".
  int32_t threads;        // In [1, 1024]; 0 means one for each processor. Results do not depend on it.
  int64_t memory_budget;  // Upper limit in bytes for intermediate values of a run; 0 means none.
  gw_choice batch_tiles;  // Chains of ops run on a few samples at a time.
  gw_choice row_fusion;   // Ops over the same rows run together.
  gw_choice toom_cook;    // Convolutions may use fewer multiplications. GW_ALWAYS acts like GW_AUTO.
  const uint64_t* seed;   // Random ops use it; NULL means the model's.
} gw_session_options;

// Makes a session with the values of the model. `options` may be NULL. Returns GW_UNAVAILABLE for a
// device that this machine or build does not have, and GW_INVALID_ARGUMENT for options outside
// their range.
gw_status gw_session_create(const gw_model* model, const gw_session_options* options, gw_session** session);

void gw_session_destroy(gw_session* session);

// Runs the part of the graph that the fetches need. A session on the CPU reads feeds without a
// copy. Fetches are names of outputs. results[i] becomes a new tensor for fetch i, or NULL for an
// update; `results` has room for num_fetches. If the call fails, all are NULL, and no variable has
// changed. Returns GW_NOT_FOUND for an unknown name, GW_INVALID_ARGUMENT for a missing feed or one
// of the wrong type or sizes, and GW_OUT_OF_RANGE for bad data.
gw_status gw_session_run(gw_session* session, const gw_feed* feeds, size_t num_feeds, const char* const* fetches,
                         size_t num_fetches, gw_tensor** results);

// Returns a copy of a variable's value, or GW_NOT_FOUND.
gw_status gw_session_get_variable(const gw_session* session, const char* name, gw_tensor** value);
// Copies the value into the variable. Returns GW_INVALID_ARGUMENT for another dtype or other sizes,
// or GW_NOT_FOUND.
gw_status gw_session_set_variable(gw_session* session, const char* name, const gw_tensor* value);

// Saves the model with the present values of the variables, as gw_model_save does.
gw_status gw_session_save(const gw_session* session, const char* path);
// Saves outputs with the present values of the variables, as gw_model_save_onnx does.
gw_status gw_session_save_onnx(const gw_session* session, const char* const* outputs, size_t num_outputs,
                               const char* path);

// Prepared runs: a run that is planned once and repeated allocates nothing. -----------------------

typedef struct gw_run gw_run;

// Prepares a run as of gw_session_run. Each run reads the current contents of the feeds' memory;
// the prepared run keeps the memory, but not the handles.
gw_status gw_session_prepare(gw_session* session, const gw_feed* feeds, size_t num_feeds, const char* const* fetches,
                             size_t num_fetches, gw_run** run);

// Prepares a run whose inputs are rows of tables, `num_rows` rows each, the same rows of all. A
// table has the type of its input with any first size. If the input is GW_FLOAT32 and the table
// GW_UINT8, elements are divided by 255. The session keeps the tables in the memory of its device,
// once for all runs that share a table.
gw_status gw_session_prepare_rows(gw_session* session, const gw_feed* tables, size_t num_tables, int64_t num_rows,
                                  const char* const* fetches, size_t num_fetches, gw_run** run);

// Runs. The results overwrite the previous ones.
gw_status gw_run_execute(gw_run* run);
// Makes feed number `index` read another tensor of the same type and sizes.
gw_status gw_run_set_feed(gw_run* run, size_t index, const gw_tensor* tensor);
// Sets the numbers of the rows that the next runs read. Their count is the one that the run was
// prepared for, and each is at least 0. A number beyond the tables fails the run.
gw_status gw_run_set_rows(gw_run* run, const int64_t* rows, size_t num_rows);
// Returns the result of fetch number `index`, which belongs to the run. Its elements are valid
// after the first run. Returns GW_OUT_OF_RANGE for an invalid index, and GW_INVALID_ARGUMENT for
// the index of an update.
gw_status gw_run_result(const gw_run* run, size_t index, const gw_tensor** result);

void gw_run_destroy(gw_run* run);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // GRADWEAVE_FRONTEND_C_GRADWEAVE_H_
