// SPDX-License-Identifier: BSD-3-Clause
// A borrowed view of a tensor, taken through the DLPack C exchange API (no capsule, no copy, no link to torch).
#pragma once

#include <dlpack/dlpack.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "twostream/common.h"

namespace twostream::python {

namespace py = pybind11;

class Call;

// Names an argument in error messages: "flow_stack: windows".
struct Argument {
  Call& call;
  const char* name;
  int64_t index = -1;  // in a list of tensors

  std::string text() const;
};

// Valid while the Python object lives, which the caller of the binding sees to.
struct Tensor {
  DLTensor view;

  int ndim() const { return view.ndim; }
  int64_t shape(int dimension) const { return view.shape[dimension]; }
  int64_t stride(int dimension) const { return view.strides[dimension]; }
  bool on_cuda() const { return view.device.device_type == kDLCUDA; }
  // Whether the CUDA kernels work on it; in the host build they work on the CPU's tensors.
  bool for_cuda_kernels() const {
#if defined(TWOSTREAM_CUDA_ON_HOST)
    return true;
#else
    return on_cuda();
#endif
  }
  template <typename T = void>
  T* data() const {
    return reinterpret_cast<T*>(static_cast<char*>(view.data) + view.byte_offset);
  }
};

enum class Access { reads, writes };

// One call of an operator. Whatever memory its kernel is to touch is taken here, so that no operator can leave out a
// check: of the device, and, before the kernel runs, that what is written lies apart from all else.
class Call {
 public:
  explicit Call(const char* op) : op_(op) { taken_.reserve(8); }

  const char* op() const { return op_; }
  Tensor take(py::handle object, const Argument& argument, Access access);
  std::vector<Tensor> take_all(const py::sequence& objects, const Argument& argument, Access access);
  void check_apart();

 private:
  struct Memory {
    const char* begin;
    const char* end;
    Access access;
    const char* name;
    int64_t index;
  };

  const char* op_;
  std::vector<Memory> taken_;
};

// The stream on which the tensors' framework runs at present (NULL on the CPU).
void* current_stream(py::handle object, const Tensor& tensor);

// "[2, 10, 256, 340, 2] uint8 on cuda:0"
std::string describe(const Tensor& tensor);
std::string describe(const DLDataType& type);

}  // namespace twostream::python
