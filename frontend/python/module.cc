// The Python module `gradweave`: models, sessions and tensors, over the C interface.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gradweave/frontend/c/dlpack_layout.h"
#include "gradweave/frontend/c/gradweave.h"

namespace py = pybind11;

namespace gradweave::python {
namespace {

// An error of the library. Python sees it as gradweave.Error.
struct Error : std::runtime_error {
  Error(gw_status status, const std::string& message) : std::runtime_error(message), status(status) {}
  gw_status status;
};

void Check(gw_status status) {
  if (status == GW_OK) return;
  // The message begins with the name of the C function, and may end with advice to call another
  // one. Users of Python have called neither.
  std::string message = gw_last_error();
  if (const size_t colon = message.find(": "); message.rfind("gw_", 0) == 0 && colon != std::string::npos) {
    message.erase(0, colon + 2);
  }
  throw Error(status, message.substr(0, message.find("; gw_")));
}

struct Destroy {
  void operator()(gw_tensor* handle) const { gw_tensor_destroy(handle); }
  void operator()(gw_model* handle) const { gw_model_destroy(handle); }
  void operator()(gw_session* handle) const { gw_session_destroy(handle); }
};

// A dense array in host memory. Copies share their elements.
struct Tensor {
  std::shared_ptr<gw_tensor> handle;

  explicit Tensor(gw_tensor* owned) : handle(owned, Destroy()) {}
  gw_dtype dtype() const { return gw_tensor_dtype(handle.get()); }
  std::vector<int64_t> sizes() const {
    const int64_t* const begin = gw_tensor_sizes(handle.get());
    return {begin, begin + gw_tensor_rank(handle.get())};
  }
};

// Codes of the module struct for the dtypes, which the buffer protocol uses. bfloat16 has none.
struct Format {
  gw_dtype dtype;
  char code;
};
constexpr Format kFormats[] = {
    {GW_FLOAT32, 'f'}, {GW_FLOAT64, 'd'}, {GW_INT32, 'i'}, {GW_INT64, 'q'},  {GW_UINT8, 'B'},  {GW_BOOL, '?'},
    {GW_FLOAT16, 'e'}, {GW_INT8, 'b'},    {GW_INT16, 'h'}, {GW_UINT16, 'H'}, {GW_UINT32, 'I'}, {GW_UINT64, 'Q'},
};

py::buffer_info BufferOf(Tensor& tensor) {
  const auto item_size = static_cast<py::ssize_t>(gw_dtype_size(tensor.dtype()));
  for (const Format& format : kFormats) {
    if (format.dtype != tensor.dtype()) continue;
    const std::vector<int64_t> sizes = tensor.sizes();
    std::vector<py::ssize_t> shape(sizes.begin(), sizes.end()), strides(sizes.size(), item_size);
    for (size_t axis = sizes.size(); axis-- > 1;) strides[axis - 1] = strides[axis] * shape[axis];
    return py::buffer_info(gw_tensor_data(tensor.handle.get()), item_size, std::string(1, format.code),
                           static_cast<py::ssize_t>(shape.size()), shape, strides);
  }
  throw py::buffer_error(std::string("the buffer protocol has no ") + gw_dtype_name(tensor.dtype()) +
                         "; use from_dlpack of a library that has it");
}

// The dtype of a buffer's elements. Throws TypeError if there is none.
gw_dtype DTypeOf(const Py_buffer& buffer) {
  std::string code = buffer.format != nullptr ? buffer.format : "B";
  if (code.size() == 2 && std::strchr("@=<", code[0]) != nullptr) code.erase(0, 1);
  // "l" has 8 bytes on this system, unless the order of bytes is named.
  if (code == "l" || code == "L") code = buffer.itemsize == 8 ? (code == "l" ? "q" : "Q") : (code == "l" ? "i" : "I");
  for (const Format& format : kFormats) {
    if (code == std::string(1, format.code) && gw_dtype_size(format.dtype) == static_cast<size_t>(buffer.itemsize))
      return format.dtype;
  }
  throw py::type_error("no dtype has elements of the format '" + code + "'");
}

struct ReleaseBuffer {
  void operator()(Py_buffer* buffer) const {
    PyBuffer_Release(buffer);
    delete buffer;
  }
};

// Drops a buffer when no tensor uses it any more, from any thread.
void DropBuffer(void* context) {
  if (Py_IsInitialized() == 0) return;  // The interpreter has ended, and its memory with it.
  const py::gil_scoped_acquire lock;
  ReleaseBuffer()(static_cast<Py_buffer*>(context));
}

// The elements of a buffer, without a copy if they are in order without gaps.
Tensor FromBuffer(py::handle object) {
  std::unique_ptr<Py_buffer, ReleaseBuffer> buffer(new Py_buffer());
  if (PyObject_GetBuffer(object.ptr(), buffer.get(), PyBUF_FORMAT | PyBUF_STRIDED_RO) != 0) {
    throw py::error_already_set();
  }
  const gw_dtype dtype = DTypeOf(*buffer);
  const std::vector<int64_t> sizes(buffer->shape, buffer->shape + buffer->ndim);
  gw_tensor* tensor = nullptr;
  const bool is_aligned = reinterpret_cast<uintptr_t>(buffer->buf) % gw_dtype_size(dtype) == 0;
  if (is_aligned && buffer->len > 0 && PyBuffer_IsContiguous(buffer.get(), 'C') != 0) {
    Check(gw_tensor_view(dtype, buffer->ndim, sizes.data(), buffer->buf, DropBuffer, buffer.get(), &tensor));
    (void)buffer.release();  // NOLINT(bugprone-unused-return-value): DropBuffer gets it.
    return Tensor(tensor);
  }
  Check(gw_tensor_create(dtype, buffer->ndim, sizes.data(), &tensor));
  Tensor copy(tensor);
  if (PyBuffer_ToContiguous(gw_tensor_data(tensor), buffer.get(), buffer->len, 'C') != 0) throw py::error_already_set();
  return copy;
}

constexpr char kCapsule[] = "dltensor", kUsedCapsule[] = "used_dltensor";

// The tensor of an object with __dlpack__, without a copy.
Tensor FromDlpack(py::handle object) {
  if (!py::hasattr(object, "__dlpack__")) {
    throw py::type_error("an array is expected: an object with the buffer protocol or with __dlpack__, and not " +
                         std::string(py::str(py::type::handle_of(object))));
  }
  const py::object capsule = object.attr("__dlpack__")();
  auto* const managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), kCapsule));
  if (managed == nullptr) throw py::error_already_set();
  gw_tensor* tensor = nullptr;
  Check(gw_tensor_from_dlpack(managed, &tensor));
  if (PyCapsule_SetName(capsule.ptr(), kUsedCapsule) != 0) throw py::error_already_set();
  return Tensor(tensor);
}

Tensor ToTensor(py::handle object) {
  if (py::isinstance<Tensor>(object)) return object.cast<Tensor>();
  return PyObject_CheckBuffer(object.ptr()) != 0 ? FromBuffer(object) : FromDlpack(object);
}

py::capsule ToDlpack(const Tensor& tensor, const py::object& stream) {
  if (!stream.is_none()) throw py::value_error("__dlpack__: the tensor is in main memory, so stream has to be None");
  DLManagedTensor* managed = nullptr;
  Check(gw_tensor_to_dlpack(tensor.handle.get(), &managed));
  return py::reinterpret_steal<py::capsule>(PyCapsule_New(managed, kCapsule, [](PyObject* capsule) {
    // Who has taken the tensor over has renamed the capsule.
    if (PyCapsule_IsValid(capsule, kCapsule) == 0) return;
    auto* const kept = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, kCapsule));
    kept->deleter(kept);
  }));
}

// An input, output or variable of a model.
struct Description {
  std::string name, dtype;
  py::tuple shape;  // Numbers, and texts for sizes that feeds determine.
  bool trainable = false, is_update = false;
};

Description Describe(const gw_description& from) {
  Description to{.name = from.name,
                 .dtype = gw_dtype_name(from.dtype),
                 .shape = py::tuple(from.rank),
                 .trainable = from.trainable != 0,
                 .is_update = from.is_update != 0};
  for (int32_t axis = 0; axis < from.rank; ++axis) {
    if (from.sizes[axis] >= 0) {
      to.shape[axis] = from.sizes[axis];
    } else {
      to.shape[axis] = from.dimensions[axis];
    }
  }
  return to;
}

// A graph and the values of its variables.
class Model {
 public:
  static Model Load(const std::string& path, int64_t memory_limit, bool map_weights) {
    const gw_load_options options{.memory_limit = memory_limit, .map_weights = map_weights ? 1 : 0};
    gw_model* model = nullptr;
    Check(WithoutLock([&] { return gw_model_load(path.c_str(), &options, &model); }));
    return Model(model);
  }
  static Model FromBytes(const py::bytes& bytes) {
    const std::string_view view = bytes;
    gw_model* model = nullptr;
    Check(gw_model_load_bytes(view.data(), view.size(), nullptr, &model));
    return Model(model);
  }

  std::vector<Description> All(gw_kind kind) const {
    size_t count = 0;
    Check(gw_model_count(handle_.get(), kind, &count));
    std::vector<Description> all;
    for (size_t i = 0; i < count; ++i) {
      gw_description description;
      Check(gw_model_describe(handle_.get(), kind, i, &description));
      all.push_back(Describe(description));
    }
    return all;
  }
  void AddGradients(const std::string& loss, const std::optional<std::vector<std::string>>& wrt,
                    const std::string& prefix) {
    std::vector<const char*> names;
    if (wrt.has_value()) {
      for (const std::string& name : *wrt) names.push_back(name.c_str());
    }
    if (wrt.has_value() && wrt->empty()) throw py::value_error("wrt is empty; None means all trainable variables");
    Check(gw_model_add_gradients(handle_.get(), loss.c_str(), names.data(), names.size(), prefix.c_str()));
  }
  void Save(const std::string& path) const {
    Check(WithoutLock([&] { return gw_model_save(handle_.get(), path.c_str()); }));
  }
  const gw_model* handle() const { return handle_.get(); }

  // Calls a function while other threads of Python run. It must not touch Python's objects.
  template <typename Function>
  static gw_status WithoutLock(Function function) {
    const py::gil_scoped_release unlocked;
    return function();
  }

 private:
  explicit Model(gw_model* owned) : handle_(owned) {}
  std::unique_ptr<gw_model, Destroy> handle_;
};

// Runs a model and keeps the values of its variables.
class Session {
 public:
  Session(const Model& model, const std::string& device, int32_t threads, int64_t memory_budget,
          std::optional<uint64_t> seed) {
    const gw_session_options options{.device = device.c_str(),
                                     .threads = threads,
                                     .memory_budget = memory_budget,
                                     .seed = seed.has_value() ? &*seed : nullptr};
    gw_session* session = nullptr;
    Check(Model::WithoutLock([&] { return gw_session_create(model.handle(), &options, &session); }));
    handle_.reset(session);
  }

  std::vector<std::optional<Tensor>> Run(const py::dict& feeds, const std::vector<std::string>& fetches) {
    std::vector<std::string> names;
    std::vector<Tensor> tensors;
    for (const auto& [name, value] : feeds) {
      names.push_back(name.cast<std::string>());
      tensors.push_back(ToTensor(value));
    }
    std::vector<gw_feed> of_run;
    for (size_t i = 0; i < names.size(); ++i) of_run.push_back({names[i].c_str(), tensors[i].handle.get()});
    std::vector<const char*> wanted;
    for (const std::string& fetch : fetches) wanted.push_back(fetch.c_str());
    std::vector<gw_tensor*> results(fetches.size());
    Check(Model::WithoutLock([&] {
      return gw_session_run(handle_.get(), of_run.data(), of_run.size(), wanted.data(), wanted.size(), results.data());
    }));
    std::vector<std::optional<Tensor>> all;
    for (gw_tensor* const result : results)
      all.push_back(result != nullptr ? std::optional(Tensor(result)) : std::nullopt);
    return all;
  }

  Tensor Variable(const std::string& name) const {
    gw_tensor* value = nullptr;
    Check(gw_session_get_variable(handle_.get(), name.c_str(), &value));
    return Tensor(value);
  }
  void SetVariable(const std::string& name, py::handle value) {
    Check(gw_session_set_variable(handle_.get(), name.c_str(), ToTensor(value).handle.get()));
  }
  void Save(const std::string& path) const {
    Check(Model::WithoutLock([&] { return gw_session_save(handle_.get(), path.c_str()); }));
  }

 private:
  std::unique_ptr<gw_session, Destroy> handle_;
};

// The type as the library's errors show it: "float32[batch,10]".
std::string TypeText(const std::string& dtype, const py::iterable& shape) {
  std::string text;
  for (const py::handle size : shape) text += (text.empty() ? "" : ",") + std::string(py::str(size));
  return dtype + "[" + text + "]";
}

std::string Repr(const Description& value) {
  return value.name + ": " + (value.is_update ? "an update" : TypeText(value.dtype, value.shape));
}

void DefineTensor(py::module_& module) {
  py::class_<Tensor>(module, "Tensor", py::buffer_protocol(),
                     "A dense array in main memory. numpy.asarray(t) and other libraries' from_dlpack(t) share its\n"
                     "elements without a copy.")
      .def(py::init([](const py::object& array) { return ToTensor(array); }), py::arg("array"),
           "Takes an array of numpy, torch or another library. The elements are shared if they are in order without\n"
           "gaps, and copied otherwise.")
      .def_buffer(BufferOf)
      .def_property_readonly("dtype", [](const Tensor& t) { return gw_dtype_name(t.dtype()); })
      .def_property_readonly("shape", [](const Tensor& t) { return py::tuple(py::cast(t.sizes())); })
      .def(
          "numpy", [](const py::object& self) { return py::module_::import("numpy").attr("asarray")(self); },
          "The elements as an array of numpy, without a copy.")
      .def("__dlpack__", ToDlpack, py::kw_only(), py::arg("stream") = py::none())
      .def("__dlpack_device__", [](const Tensor&) { return std::pair(int{dlpack::kCpu}, 0); })
      .def("__repr__", [](const Tensor& t) {
        return "gradweave.Tensor(" + TypeText(gw_dtype_name(t.dtype()), py::cast(t.sizes())) + ")";
      });
}

void DefineModel(py::module_& module) {
  py::class_<Description>(module, "Description", "An input, output or variable of a model.")
      .def_readonly("name", &Description::name)
      .def_readonly("dtype", &Description::dtype)
      .def_readonly("shape", &Description::shape, "Numbers, and texts such as 'batch' for sizes that feeds determine.")
      .def_readonly("trainable", &Description::trainable, "True for a variable that training changes.")
      .def_readonly("is_update", &Description::is_update,
                    "True for an output that changes variables, such as a training step; it has no tensor.")
      .def("__repr__", Repr);
  py::class_<Model>(module, "Model", "A graph and the values of its variables.")
      .def_static("load", &Model::Load, py::arg("path"), py::kw_only(), py::arg("memory_limit") = 0,
                  py::arg("map_weights") = false,
                  "Loads a model file and checks everything in it. memory_limit is in bytes; 0 means 8 GiB. With\n"
                  "map_weights the weights stay in their file, which must not change.")
      .def_static("from_bytes", &Model::FromBytes, py::arg("bytes"), "Loads a model whose weights are in its file.")
      .def_property_readonly("inputs", [](const Model& model) { return model.All(GW_INPUT); })
      .def_property_readonly("outputs", [](const Model& model) { return model.All(GW_OUTPUT); })
      .def_property_readonly("variables", [](const Model& model) { return model.All(GW_VARIABLE); })
      .def("add_gradients", &Model::AddGradients, py::arg("loss"), py::arg("wrt") = py::none(), py::kw_only(),
           py::arg("prefix") = "grad/",
           "Adds outputs with the gradients of an output with respect to inputs and variables, by default all\n"
           "trainable variables. Their names are the prefix and the name. Sessions that exist do not change.")
      .def("save", &Model::Save, py::arg("path"), "Saves the model. The path always holds one whole model.");
}

void DefineSession(py::module_& module) {
  py::class_<Session>(module, "Session", "Runs a model and keeps the values of its variables.")
      .def(py::init<const Model&, const std::string&, int32_t, int64_t, std::optional<uint64_t>>(), py::arg("model"),
           py::kw_only(), py::arg("device") = "cpu", py::arg("threads") = 0, py::arg("memory_budget") = 0,
           py::arg("seed") = py::none(),
           "device is 'cpu', 'cuda', 'cuda:1' or 'best'. threads is in [1, 1024]; 0 means one for each processor.\n"
           "memory_budget is an upper limit in bytes for intermediate values; 0 means none. seed is the model's by\n"
           "default.")
      .def("run", &Session::Run, py::arg("feeds"), py::arg("fetches"),
           "Runs the part of the graph that the fetches need. feeds has arrays by the names of inputs; their elements\n"
           "are read without a copy if they are in order without gaps. Returns a list with a Tensor for each fetch,\n"
           "or None for an update. A run that fails changes no variable.")
      .def("variable", &Session::Variable, py::arg("name"), "A copy of the variable's value.")
      .def("set_variable", &Session::SetVariable, py::arg("name"), py::arg("value"),
           "Copies the value, which has the variable's dtype and shape.")
      .def("save", &Session::Save, py::arg("path"), "Saves the model with the present values of the variables.");
}

}  // namespace

void Define(py::module_& module) {
  module.doc() =
      "Gradweave: loads, runs, differentiates, trains and saves models of computation graphs.\n\n"
      "    import gradweave, numpy\n"
      "    session = gradweave.Session(gradweave.Model.load('lenet.gw'))\n"
      "    images = numpy.zeros([8, 1, 28, 28], 'float32')\n"
      "    [probabilities] = session.run({'image': images}, ['probabilities'])\n"
      "    print(probabilities.numpy())\n";
  module.attr("__version__") = gw_version();
  // The object lives as long as the interpreter.
  static PyObject* const error_type = PyErr_NewExceptionWithDoc(
      "gradweave.Error", "An error of Gradweave. `status` is its kind: 'INVALID_ARGUMENT', 'NOT_FOUND' and so on.",
      PyExc_RuntimeError, nullptr);
  if (error_type == nullptr) throw py::error_already_set();
  module.add_object("Error", error_type);
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& error) {
      const py::object value = py::reinterpret_borrow<py::object>(error_type)(error.what());
      value.attr("status") = gw_status_name(error.status);
      PyErr_SetObject(error_type, value.ptr());
    }
  });
  DefineTensor(module);
  DefineModel(module);
  DefineSession(module);
}

}  // namespace gradweave::python

PYBIND11_MODULE(gradweave, module) { gradweave::python::Define(module); }
