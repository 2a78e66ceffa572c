// The Python module `gradweave`: models, sessions and tensors, over the C interface.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <compare>
#include <cstdint>
#include <cstring>
#include <exception>
#include <map>
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

// A name of a model, or a path. Names may be any bytes; Python's str has those that are no UTF-8 as
// lone surrogates, as it has them in names of files.
struct Name {
  std::string text;
  auto operator<=>(const Name&) const = default;
};

}  // namespace gradweave::python

template <>
struct pybind11::detail::type_caster<gradweave::python::Name> {
  PYBIND11_TYPE_CASTER(gradweave::python::Name, const_name("str"));

  bool load(handle source, bool /*converts*/) {
    if (PyBytes_Check(source.ptr()) != 0) {
      value.text = std::string(reinterpret_borrow<pybind11::bytes>(source));
      return true;
    }
    if (PyUnicode_Check(source.ptr()) == 0) return false;
    const auto bytes =
        reinterpret_steal<pybind11::bytes>(PyUnicode_AsEncodedString(source.ptr(), "utf-8", "surrogateescape"));
    if (!bytes) throw error_already_set();
    value.text = std::string(bytes);
    return true;
  }
  static handle cast(const gradweave::python::Name& name, return_value_policy /*policy*/, handle /*parent*/) {
    PyObject* const text =
        PyUnicode_DecodeUTF8(name.text.data(), static_cast<Py_ssize_t>(name.text.size()), "surrogateescape");
    if (text == nullptr) throw error_already_set();
    return text;
  }
};

namespace gradweave::python {
namespace {

// A text for people, in which bytes that are not UTF-8 are escaped as \xff.
py::str Printable(const std::string& text) {
  PyObject* const printable =
      PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "backslashreplace");
  if (printable == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(printable);
}

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
  Name name;
  std::string dtype;
  py::tuple shape;  // Numbers, and texts for sizes that feeds determine.
  bool trainable = false, is_update = false;
};

Description Describe(const gw_description& from) {
  Description to{.name = {from.name},
                 .dtype = gw_dtype_name(from.dtype),
                 .shape = py::tuple(from.rank),
                 .trainable = from.trainable != 0,
                 .is_update = from.is_update != 0};
  for (int32_t axis = 0; axis < from.rank; ++axis) {
    if (from.sizes[axis] >= 0) {
      to.shape[axis] = from.sizes[axis];
    } else {
      to.shape[axis] = Name{from.dimensions[axis]};
    }
  }
  return to;
}

std::vector<const char*> Pointers(const std::vector<Name>& names) {
  std::vector<const char*> pointers;
  for (const Name& name : names) pointers.push_back(name.text.c_str());
  return pointers;
}

// Arrays by names of inputs, as the C interface takes them.
struct Feeds {
  explicit Feeds(const py::dict& arrays) {
    for (const auto& [name, value] : arrays) {
      names.push_back(name.cast<Name>());
      tensors.push_back(ToTensor(value));
    }
    for (size_t i = 0; i < names.size(); ++i) feeds.push_back({names[i].text.c_str(), tensors[i].handle.get()});
  }

  std::vector<Name> names;
  std::vector<Tensor> tensors;
  std::vector<gw_feed> feeds;
};

using Shapes = std::map<Name, std::vector<int64_t>>;

// Options of loading, and the data that they point to.
struct LoadOptions {
  LoadOptions(int64_t memory_limit, bool map_weights, const py::dict& fixed_arrays, const Shapes& given)
      : fixed(fixed_arrays) {
    for (const auto& [name, sizes] : given)
      shapes.push_back({name.text.c_str(), static_cast<int32_t>(sizes.size()), sizes.data()});
    options = {.memory_limit = memory_limit,
               .map_weights = map_weights ? 1 : 0,
               .fixed = fixed.feeds.data(),
               .num_fixed = fixed.feeds.size(),
               .shapes = shapes.data(),
               .num_shapes = shapes.size()};
  }

  Feeds fixed;
  std::vector<gw_shape> shapes;
  gw_load_options options;
};

// A graph and the values of its variables.
class Model {
 public:
  static Model Load(const Name& path, int64_t memory_limit, bool map_weights, const py::dict& fixed,
                    const Shapes& shapes) {
    const LoadOptions options(memory_limit, map_weights, fixed, shapes);
    gw_model* model = nullptr;
    Check(WithoutLock([&] { return gw_model_load(path.text.c_str(), &options.options, &model); }));
    return Model(model);
  }
  static Model FromBytes(const py::bytes& bytes, const py::dict& fixed, const Shapes& shapes) {
    const LoadOptions options(0, false, fixed, shapes);
    const std::string_view view = bytes;
    gw_model* model = nullptr;
    Check(gw_model_load_bytes(view.data(), view.size(), &options.options, &model));
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
  void AddGradients(const Name& loss, const std::optional<std::vector<Name>>& wrt, const Name& prefix) {
    std::vector<const char*> names;
    if (wrt.has_value()) names = Pointers(*wrt);
    if (wrt.has_value() && wrt->empty()) throw py::value_error("wrt is empty; None means all trainable variables");
    Check(gw_model_add_gradients(handle_.get(), loss.text.c_str(), names.data(), names.size(), prefix.text.c_str()));
  }
  void Save(const Name& path) const {
    Check(WithoutLock([&] { return gw_model_save(handle_.get(), path.text.c_str()); }));
  }
  void SaveOnnx(const Name& path, const std::vector<Name>& outputs) const {
    const std::vector<const char*> names = Pointers(outputs);
    Check(
        WithoutLock([&] { return gw_model_save_onnx(handle_.get(), names.data(), names.size(), path.text.c_str()); }));
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

  std::vector<std::optional<Tensor>> Run(const py::dict& feeds, const std::vector<Name>& fetches) {
    const Feeds given(feeds);
    const std::vector<const char*> wanted = Pointers(fetches);
    std::vector<gw_tensor*> results(fetches.size());
    Check(Model::WithoutLock([&] {
      return gw_session_run(handle_.get(), given.feeds.data(), given.feeds.size(), wanted.data(), wanted.size(),
                            results.data());
    }));
    std::vector<std::optional<Tensor>> all;
    for (gw_tensor* const result : results)
      all.push_back(result != nullptr ? std::optional(Tensor(result)) : std::nullopt);
    return all;
  }

  Tensor Variable(const Name& name) const {
    gw_tensor* value = nullptr;
    Check(gw_session_get_variable(handle_.get(), name.text.c_str(), &value));
    return Tensor(value);
  }
  void SetVariable(const Name& name, py::handle value) {
    Check(gw_session_set_variable(handle_.get(), name.text.c_str(), ToTensor(value).handle.get()));
  }
  void Save(const Name& path) const {
    Check(Model::WithoutLock([&] { return gw_session_save(handle_.get(), path.text.c_str()); }));
  }
  void SaveOnnx(const Name& path, const std::vector<Name>& outputs) const {
    const std::vector<const char*> names = Pointers(outputs);
    Check(Model::WithoutLock(
        [&] { return gw_session_save_onnx(handle_.get(), names.data(), names.size(), path.text.c_str()); }));
  }

 private:
  std::unique_ptr<gw_session, Destroy> handle_;
};

// The type as the library's errors show it: "float32[batch,10]".
std::string TypeText(const std::string& dtype, const py::iterable& shape) {
  std::string text;
  for (const py::handle size : shape) text += (text.empty() ? "" : ",") + py::str(size).cast<Name>().text;
  return dtype + "[" + text + "]";
}

py::str Repr(const Description& value) {
  return Printable(value.name.text + ": " + (value.is_update ? "an update" : TypeText(value.dtype, value.shape)));
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
                  py::arg("map_weights") = false, py::arg("fixed") = py::dict(), py::arg("shapes") = py::dict(),
                  "Loads a model file, of Gradweave or ONNX, and checks everything in it. memory_limit is in bytes;\n"
                  "0 means 8 GiB. With map_weights the weights stay in their file, which must not change. Some ONNX\n"
                  "files need the values of inputs to become a graph, or shapes of inputs that they leave open:\n"
                  "fixed and shapes have them by the names of the inputs.")
      .def_static("from_bytes", &Model::FromBytes, py::arg("bytes"), py::kw_only(), py::arg("fixed") = py::dict(),
                  py::arg("shapes") = py::dict(), "Loads a model whose weights are in its file.")
      .def_property_readonly("inputs", [](const Model& model) { return model.All(GW_INPUT); })
      .def_property_readonly("outputs", [](const Model& model) { return model.All(GW_OUTPUT); })
      .def_property_readonly("variables", [](const Model& model) { return model.All(GW_VARIABLE); })
      .def("add_gradients", &Model::AddGradients, py::arg("loss"), py::arg("wrt") = py::none(), py::kw_only(),
           py::arg("prefix") = "grad/",
           "Adds outputs with the gradients of an output with respect to inputs and variables, by default all\n"
           "trainable variables. Their names are the prefix and the name. Sessions that exist do not change.")
      .def("save", &Model::Save, py::arg("path"), "Saves the model. The path always holds one whole model.")
      .def("save_onnx", &Model::SaveOnnx, py::arg("path"), py::arg("outputs") = std::vector<Name>(),
           "Saves outputs as an ONNX file, by default all but the updates. An update gives new values of variables.");
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
      .def("save", &Session::Save, py::arg("path"), "Saves the model with the present values of the variables.")
      .def("save_onnx", &Session::SaveOnnx, py::arg("path"), py::arg("outputs") = std::vector<Name>(),
           "Saves outputs with the present values as an ONNX file, as Model.save_onnx does.");
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
      const py::object value = py::reinterpret_borrow<py::object>(error_type)(Printable(error.what()));
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
