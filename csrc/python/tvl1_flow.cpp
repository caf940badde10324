// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/tvl1_flow.h"

#include <limits>

#include "python/check.h"
#include "python/operators.h"

namespace twostream::python {
namespace {

float check_positive(Call& call, const char* name, double value) {
  const auto number = static_cast<float>(value);
  if (!(number > 0.0f && number < std::numeric_limits<float>::infinity())) {
    refuse_value({call, name}, "a positive number", std::to_string(value));
  }
  return number;
}

twostream_grey_frames check_frames(const Tensor& frames, const Argument& argument) {
  check_shape(frames, argument, {-1, -1, -1});
  const bool is_bytes = is_type(frames, kDLUInt, 8);
  if (!is_bytes && !is_type(frames, kDLFloat, 32)) {
    refuse_type(argument, "uint8 or float32", describe(frames.view.dtype));
  }
  const int64_t largest = std::numeric_limits<int32_t>::max() / 2;
  if (frames.shape(1) < 1 || frames.shape(2) < 1 || frames.shape(1) > largest || frames.shape(2) > largest) {
    refuse_value(argument, "of at least one pixel", describe(frames));
  }
  return {frames.data(),
          is_bytes ? TWOSTREAM_UINT8 : TWOSTREAM_FLOAT32,
          frames.shape(0),
          static_cast<int32_t>(frames.shape(1)),
          static_cast<int32_t>(frames.shape(2)),
          frames.stride(0),
          frames.stride(1),
          frames.stride(2)};
}

// Float32 [pairs, H, W, 2].
twostream_flow_fields check_fields(const Tensor& fields, const Argument& argument, const Tensor& frames,
                                   const char* frames_name, int64_t pairs) {
  check_shape(fields, argument, {pairs, frames.shape(1), frames.shape(2), 2});
  check_same_device(fields, argument, frames, frames_name);
  if (!is_type(fields, kDLFloat, 32)) {
    refuse_type(argument, "float32", describe(fields.view.dtype));
  }
  return {fields.data<float>(), fields.stride(0), fields.stride(1), fields.stride(2), fields.stride(3)};
}

int32_t check_finest_scale(Call& call, int64_t value) {
  if (value < 0 || value > std::numeric_limits<int32_t>::max()) {
    refuse_value({call, "finest_scale"}, "a number from 0", std::to_string(value));
  }
  return static_cast<int32_t>(value);
}

int32_t check_median(Call& call, int64_t median) {
  if (median != 0 && median != 3 && median != 5) {
    refuse_value({call, "median"}, "0, 3 or 5", std::to_string(median));
  }
  return static_cast<int32_t>(median);
}

float check_scale_step(Call& call, double scale_step) {
  const auto step = static_cast<float>(scale_step);
  if (!(step >= 0.1f && step < 1.0f)) {
    refuse_value({call, "scale_step"}, "at least 0.1 and below 1", std::to_string(scale_step));
  }
  return step;
}

float check_epsilon(Call& call, double epsilon) {
  const auto number = static_cast<float>(epsilon);
  if (!(number >= 0.0f && number < std::numeric_limits<float>::infinity())) {
    refuse_value({call, "epsilon"}, "a number from 0", std::to_string(epsilon));
  }
  return number;
}

// What is not a tensor.
twostream_tvl1_flow_args check_constants(Call& call, double tau, double lambda, double theta, int64_t scales,
                                         double scale_step, int64_t finest_scale, int64_t warps, double epsilon,
                                         int64_t iterations, int64_t median, int64_t median_every,
                                         int64_t concurrent_pairs, bool share_rows) {
  twostream_tvl1_flow_args args{};
  args.tau = check_positive(call, "tau", tau);
  args.lambda = check_positive(call, "lambda_", lambda);
  args.theta = check_positive(call, "theta", theta);
  args.epsilon = check_epsilon(call, epsilon);
  args.scales = check_count(call, "scales", scales);
  args.scale_step = check_scale_step(call, scale_step);
  args.finest_scale = check_finest_scale(call, finest_scale);
  args.warps = check_count(call, "warps", warps);
  args.iterations = check_count(call, "iterations", iterations);
  args.median = check_median(call, median);
  args.median_every = check_count(call, "median_every", median_every);
  args.concurrent_pairs = check_count(call, "concurrent_pairs", concurrent_pairs);
  args.share_rows = share_rows ? 1 : 0;
  return args;
}

int64_t workspace_bytes(Call& call, const twostream_tvl1_flow_args& args, const Tensor& frames) {
  const int64_t bytes =
      frames.for_cuda_kernels() ? twostream_tvl1_flow_workspace_cuda(&args) : twostream_tvl1_flow_workspace_cpu(&args);
  if (bytes < 0) {
    raise_status(call.op(), static_cast<int>(bytes));
  }
  return bytes;
}

// Two operators come here: `op` is the one that was called, `name` that of the frames it was given.
int64_t tvl1_flow_workspace(const std::string& op, const std::string& name, const py::object& frames, int64_t scales,
                            double scale_step, int64_t concurrent_pairs) {
  Call call{op.c_str()};
  const Argument argument{call, name.c_str()};
  const Tensor images = call.take(frames, argument, Access::reads);
  twostream_tvl1_flow_args args =
      check_constants(call, 1.0, 1.0, 1.0, scales, scale_step, 0, 1, 0.0, 1, 0, 1, concurrent_pairs, false);
  args.frames = check_frames(images, argument);
  return workspace_bytes(call, args, images);
}

void tvl1_flow(const std::string& op, const std::string& name, const py::object& frames, const py::object& pairs,
               const py::object& init, double tau, double lambda, double theta, int64_t scales, double scale_step,
               int64_t finest_scale, int64_t warps, double epsilon, int64_t iterations, int64_t median,
               int64_t median_every, int64_t concurrent_pairs, bool share_rows, const py::object& workspace,
               const py::object& out) {
  Call call{op.c_str()};
  twostream_tvl1_flow_args args =
      check_constants(call, tau, lambda, theta, scales, scale_step, finest_scale, warps, epsilon, iterations, median,
                      median_every, concurrent_pairs, share_rows);
  const Argument frames_argument{call, name.c_str()};
  const Tensor images = call.take(frames, frames_argument, Access::reads);
  args.frames = check_frames(images, frames_argument);
  const Tensor indices = call.take(pairs, {call, "pairs"}, Access::reads);
  check_shape(indices, {call, "pairs"}, {-1, 2});
  check_contiguous(indices, {call, "pairs"});
  check_same_device(indices, {call, "pairs"}, images, name.c_str());
  if (!is_type(indices, kDLInt, 32)) {
    refuse_type({call, "pairs"}, "int32", describe(indices.view.dtype));
  }
  args.pairs = indices.data<int32_t>();
  args.pair_count = indices.shape(0);
  if (args.pair_count > 0 && images.shape(0) == 0) {
    refuse_value(frames_argument, "at least one frame", describe(images));
  }
  if (!init.is_none()) {
    const Argument argument{call, "init"};
    const Tensor start = call.take(init, argument, Access::reads);
    args.init = check_fields(start, argument, images, name.c_str(), args.pair_count);
  }
  const Argument out_argument{call, "out"};
  const Tensor output = call.take(out, out_argument, Access::writes);
  args.output = check_fields(output, out_argument, images, name.c_str(), args.pair_count);
  check_output_strides(output, out_argument);
  const Argument space_argument{call, "workspace"};
  const Tensor space = call.take(workspace, space_argument, Access::writes);
  check_shape(space, space_argument, {-1});
  check_contiguous(space, space_argument);
  check_same_device(space, space_argument, images, name.c_str());
  const int64_t bytes = workspace_bytes(call, args, images);
  if (!is_type(space, kDLUInt, 8) || space.shape(0) < bytes) {
    refuse_value(space_argument, std::to_string(bytes) + " bytes", describe(space));
  }
  args.workspace = space.data();
  run(call, twostream_tvl1_flow_cpu, twostream_tvl1_flow_cuda, args, frames, images);
}

}  // namespace

void bind_tvl1_flow(py::module_& module) {
  module.def("tvl1_flow_workspace", &tvl1_flow_workspace);
  module.def("tvl1_flow", &tvl1_flow);
}

}  // namespace twostream::python
