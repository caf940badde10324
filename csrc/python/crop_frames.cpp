// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/crop_frames.h"

#include <algorithm>

#include "python/check.h"
#include "python/operators.h"

namespace twostream::python {
namespace {

constexpr const char* op = "crop_frames";
constexpr const char* backward_op = "crop_frames_backward";

void copy_deviation(Call& call, const std::vector<float>& deviation, float* to) {
  if (deviation.size() != 3) {
    refuse_value({call, "std"}, "3 numbers", std::to_string(deviation.size()));
  }
  for (float each : deviation) {
    if (!(each > 0.0f)) {
      refuse_value({call, "std"}, "positive", std::to_string(each));
    }
  }
  std::copy(deviation.begin(), deviation.end(), to);
}

void crop_frames(const py::sequence& frames, const py::object& windows, const std::vector<float>& mean,
                 const std::vector<float>& deviation, const py::object& shift, const py::object& out) {
  Call call{op};
  const Samples samples = collect_samples(frames, {call, "frames"}, any_frames);
  if (mean.size() != 3) {
    refuse_value({call, "mean"}, "3 numbers", std::to_string(mean.size()));
  }
  twostream_crop_frames_args args{};
  args.frames = samples.batch();
  std::copy(mean.begin(), mean.end(), args.mean);
  copy_deviation(call, deviation, args.deviation);
  if (!shift.is_none()) {
    const Argument argument{call, "shift"};
    const Tensor tensor = call.take(shift, argument, Access::reads);
    if (dtype_of(tensor, argument, false, true) != TWOSTREAM_FLOAT32) {
      refuse_type(argument, "float32", describe(tensor.view.dtype));
    }
    check_shape(tensor, argument, {static_cast<int64_t>(samples.samples.size()), 3});
    check_contiguous(tensor, argument);
    check_same_device(tensor, argument, samples.first, samples.name);
    args.shift = tensor.data<float>();
  }
  const CropTarget target = check_crop(call, windows, out, samples, 3);
  args.windows = target.windows;
  args.windows_per_sample = target.windows_per_sample;
  args.output = target.stack;
  run(call, twostream_crop_frames_cpu, twostream_crop_frames_cuda, args, samples.object, samples.first);
}

void crop_frames_backward(const py::object& gradient, const py::object& windows, const std::vector<float>& deviation,
                          const py::sequence& out) {
  Call call{backward_op};
  const Samples samples = collect_outputs(out, {call, "out"}, float_frames);
  const CropTarget target = check_crop_gradient(call, windows, gradient, samples, 3);
  twostream_crop_frames_backward_args args{
      target.stack, target.windows, target.windows_per_sample, {}, samples.batch()};
  copy_deviation(call, deviation, args.deviation);
  run(call, twostream_crop_frames_backward_cpu, twostream_crop_frames_backward_cuda, args, samples.object,
      samples.first);
}

}  // namespace

void bind_crop_frames(py::module_& module) {
  module.def(op, &crop_frames);
  module.def(backward_op, &crop_frames_backward);
}

}  // namespace twostream::python
