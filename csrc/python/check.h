// SPDX-License-Identifier: BSD-3-Clause
// What the operators demand of their tensors. Each error names the operator, the argument, what came and what is
// wanted.
#pragma once

#include <pybind11/stl.h>

#include <array>
#include <string>
#include <vector>

#include "python/tensor.h"
#include "twostream/common.h"

namespace twostream::python {

[[noreturn]] void refuse_value(const Argument& argument, const std::string& wanted, const std::string& got);
[[noreturn]] void refuse_type(const Argument& argument, const std::string& wanted, const std::string& got);

bool is_type(const Tensor& tensor, DLDataTypeCode code, int bits);
twostream_dtype dtype_of(const Tensor& tensor, const Argument& argument, bool allow_uint8, bool allow_float);

// A positive number of 32 bits.
int32_t check_count(Call& call, const char* name, int64_t value);

// The shape must be `wanted`, where -1 stands for any length.
void check_shape(const Tensor& tensor, const Argument& argument, const std::vector<int64_t>& wanted);
void check_contiguous(const Tensor& tensor, const Argument& argument);
// `name` is that of `reference`.
void check_same_device(const Tensor& tensor, const Argument& argument, const Tensor& reference, const char* name);

// N samples, from one tensor [N, (L,) H, W, C] in a list of one, or from N tensors [(L,) H_i, W_i, C].
struct Samples {
  std::vector<twostream_sample> samples;
  Tensor first;       // for its device
  py::object object;  // the Python tensor of `first`, for its stream
  const char* name;
  int32_t length;
  twostream_dtype dtype;

  twostream_batch batch() const { return {samples.data(), static_cast<int64_t>(samples.size()), length, dtype}; }
};

struct SampleRules {
  bool has_fields;  // a dimension L, as flow has and frames have not
  int components;
  bool allow_uint8;
  bool allow_float;
};

constexpr SampleRules any_flow{true, 2, true, true};
constexpr SampleRules float_flow{true, 2, false, true};
constexpr SampleRules coded_flow{true, 2, true, false};
constexpr SampleRules any_frames{false, 3, true, true};
constexpr SampleRules float_frames{false, 3, false, true};

Samples collect_samples(const py::sequence& objects, const Argument& argument, const SampleRules& rules,
                        Access access = Access::reads);
// Outputs, no stride of which is 0.
Samples collect_outputs(const py::sequence& objects, const Argument& argument, const SampleRules& rules);
void check_output_strides(const Tensor& tensor, const Argument& argument);

// Both batches have the same N, L and sizes.
void check_same_sizes(const Samples& samples, const Argument& argument, const Samples& reference);

// An optional contiguous float32 tensor [N, L, 2] beside `samples`; NULL for None.
float* optional_per_field(const py::object& object, const Argument& argument, const Samples& samples);
float* required_per_field(const py::object& object, const Argument& argument, const Samples& samples,
                          Access access = Access::reads);

// Affine maps, a contiguous float32 tensor [N, L, 2, 3] beside `samples`.
float* optional_maps(const py::object& object, const Argument& argument, const Samples& samples);
float* required_maps(const py::object& object, const Argument& argument, const Samples& samples,
                     Access access = Access::reads);

// lo and step: both for uint8 fields, neither for float fields.
struct Coding {
  float* lo;
  float* step;
};
Coding check_coding(Call& call, const py::object& lo, const py::object& step, const Samples& samples);

using Size = std::array<int64_t, 2>;  // height and width of a window

// What a stack subtracts: the means or the camera's maps, not both.
struct Subtraction {
  float* mean;
  float* camera;
};
Subtraction check_subtraction(Call& call, const py::object& mean, const py::object& camera, const Samples& samples);

// Windows and the stack they fill: windows [N, 3] with out [N, C, h, w], or [N, K, 3] with [N, K, C, h, w].
struct CropTarget {
  const int32_t* windows;
  int32_t windows_per_sample;
  twostream_stack stack;
};
CropTarget check_crop(Call& call, const py::object& windows, const py::object& out, const Samples& samples,
                      int64_t channels);
// The same with the stack's gradient in place of `out`: it is only read, so it may be expanded.
CropTarget check_crop_gradient(Call& call, const py::object& windows, const py::object& gradient,
                               const Samples& samples, int64_t channels);

// A bi-directional stack has as many backward fields as forward ones.
void check_halves(const Argument& argument, const Samples& samples, bool bidirectional);

// int64 [N, 2] contiguous, and the int32 output [N, (K,) 3] beside it.
struct WindowsTarget {
  Tensor sizes;
  int32_t* windows;
};
WindowsTarget check_windows_target(Call& call, const py::object& sizes, const Size& size, const py::object& out,
                                   const std::vector<int64_t>& wanted);

void raise_status(const char* op, int status);

// Runs the operator where its tensors live, on the current stream, with the GIL released.
template <typename Args>
void run(Call& call, int (*on_cpu)(const Args*), int (*on_cuda)(const Args*, int, void*), const Args& args,
         const py::object& object, const Tensor& reference) {
  call.check_apart();
  void* stream = current_stream(object, reference);
  int status = 0;
  {
    const py::gil_scoped_release released;
    status = reference.for_cuda_kernels() ? on_cuda(&args, reference.view.device.device_id, stream) : on_cpu(&args);
  }
  raise_status(call.op(), status);
}

}  // namespace twostream::python
