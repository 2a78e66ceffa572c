// Handles of the C interface that destroy themselves.
#ifndef GRADWEAVE_TESTS_C_HANDLES_H_
#define GRADWEAVE_TESTS_C_HANDLES_H_

#include "gradweave/frontend/c/gradweave.h"

namespace gradweave {

template <typename T, void (*destroy)(T*)>
struct CHandle {
  CHandle() = default;
  CHandle(const CHandle&) = delete;
  CHandle& operator=(const CHandle&) = delete;
  ~CHandle() { destroy(handle); }
  void Reset() {
    destroy(handle);
    handle = nullptr;
  }

  T* handle = nullptr;
};

using ModelHandle = CHandle<gw_model, gw_model_destroy>;
using RunHandle = CHandle<gw_run, gw_run_destroy>;
using SessionHandle = CHandle<gw_session, gw_session_destroy>;
using TensorHandle = CHandle<gw_tensor, gw_tensor_destroy>;

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_C_HANDLES_H_
