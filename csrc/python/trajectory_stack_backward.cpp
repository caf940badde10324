// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/trajectory_stack_backward.h"

#include <algorithm>

#include "python/check.h"
#include "python/operators.h"

namespace twostream::python {
namespace {

constexpr const char* op = "trajectory_stack_backward";

// A contiguous workspace of at least `count` elements of type T.
template <typename T>
T* workspace(Call& call, const py::object& object, const char* name, int64_t count, const Samples& samples) {
  const Tensor tensor = call.take(object, {call, name}, Access::writes);
  check_contiguous(tensor, {call, name});
  check_same_device(tensor, {call, name}, samples.first, samples.name);
  int64_t elements = 1;
  for (int dimension = 0; dimension < tensor.ndim(); ++dimension) {
    elements *= tensor.shape(dimension);
  }
  if (elements < count || tensor.view.dtype.bits != 8 * sizeof(T) || tensor.view.dtype.lanes != 1) {
    refuse_value({call, name},
                 "at least " + std::to_string(count) + " elements of " + std::to_string(sizeof(T)) + " bytes",
                 describe(tensor));
  }
  return tensor.data<T>();
}

void trajectory_stack_backward(const py::object& gradient, const py::sequence& flow, const py::object& windows,
                               const py::object& camera, bool subtract_mean, bool bidirectional,
                               const py::object& mean_gradient, const py::sequence& flow_gradient,
                               const py::object& positions, const py::object& displacements, const py::object& largest,
                               const py::object& sums) {
  Call call{op};
  const Samples samples = collect_samples(flow, {call, "flow"}, any_flow);
  check_halves({call, "flow"}, samples, bidirectional);
  const CropTarget given = check_crop_gradient(call, windows, gradient, samples, 2 * int64_t{samples.length});
  twostream_trajectory_stack_backward_args args{};
  args.flow = samples.batch();
  args.windows = given.windows;
  args.windows_per_sample = given.windows_per_sample;
  args.bidirectional = bidirectional;
  args.gradient = given.stack;
  args.mean_gradient = required_per_field(mean_gradient, {call, "mean_gradient"}, samples, Access::writes);
  Samples results;
  if (!flow_gradient.empty()) {
    results = collect_outputs(flow_gradient, {call, "flow_gradient"}, float_flow);
    check_same_sizes(results, {call, "flow_gradient"}, samples);
    if (results.dtype != samples.dtype) {
      refuse_type({call, "flow_gradient"}, "of the dtype of flow, " + describe(samples.first.view.dtype),
                  describe(results.first.view.dtype));
    }
    args.flow_gradient = results.samples.data();
    args.camera = optional_maps(camera, {call, "camera"}, samples);
    args.subtract_mean = subtract_mean;
    const int64_t count = args.flow.size;
    const int64_t channels = 2 * int64_t{samples.length};
    const int64_t stack = count * given.windows_per_sample * channels * given.stack.height * given.stack.width;
    for (const twostream_sample& sample : samples.samples) {
      args.sums_stride = std::max(args.sums_stride, channels * sample.height * sample.width);
    }
    args.positions = workspace<float>(call, positions, "positions", stack, samples);
    args.displacements = workspace<float>(call, displacements, "displacements", stack, samples);
    args.largest = workspace<uint32_t>(call, largest, "largest", count * channels, samples);
    args.sums = workspace<int64_t>(call, sums, "sums", count * args.sums_stride, samples);
  }
  run(call, twostream_trajectory_stack_backward_cpu, twostream_trajectory_stack_backward_cuda, args, samples.object,
      samples.first);
}

}  // namespace

void bind_trajectory_stack_backward(py::module_& module) { module.def(op, &trajectory_stack_backward); }

}  // namespace twostream::python
