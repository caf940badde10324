// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/tvl1_flow.h"

#include <limits>

#include "python/check.h"
#include "python/operators.h"

namespace twostream::python {
namespace {

constexpr const char* op = "tvl1_flow";

float check_positive(const char* name, double value) {
  const auto number = static_cast<float>(value);
  if (!(number > 0.0f && number < std::numeric_limits<float>::infinity())) {
    refuse_value({op, name}, "a positive number", std::to_string(value));
  }
  return number;
}

int32_t check_count(const char* name, int64_t value) {
  if (value < 1 || value > std::numeric_limits<int32_t>::max()) {
    refuse_value({op, name}, "a positive number", std::to_string(value));
  }
  return static_cast<int32_t>(value);
}

twostream_grey_frames check_frames(const Tensor& frames) {
  const Argument argument{op, "frames"};
  check_shape(frames, argument, {-1, -1, -1});
  const bool is_bytes = is_type(frames, kDLUInt, 8);
  if (!is_bytes && !is_type(frames, kDLFloat, 32)) {
    refuse_type(argument, "uint8 or float32", describe(frames.view.dtype));
  }
  const int64_t largest = std::numeric_limits<int32_t>::max() / 2;
  if (frames.shape(1) < 1 || frames.shape(2) < 1 || frames.shape(1) > largest || frames.shape(2) > largest) {
    refuse_value(argument, "frames of at least one pixel", describe(frames));
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
                                   int64_t pairs) {
  check_shape(fields, argument, {pairs, frames.shape(1), frames.shape(2), 2});
  check_same_device(fields, argument, frames);
  if (!is_type(fields, kDLFloat, 32)) {
    refuse_type(argument, "float32", describe(fields.view.dtype));
  }
  return {fields.data<float>(), fields.stride(0), fields.stride(1), fields.stride(2), fields.stride(3)};
}

void check_apart(const Tensor& out) {
  for (int dimension = 0; dimension < out.ndim(); ++dimension) {
    if (out.shape(dimension) > 1 && out.stride(dimension) == 0) {
      refuse_value({op, "out"}, "a tensor whose elements do not share memory", describe(out));
    }
  }
}

int32_t check_median(int64_t median) {
  if (median != 0 && median != 3 && median != 5) {
    refuse_value({op, "median"}, "0, 3 or 5", std::to_string(median));
  }
  return static_cast<int32_t>(median);
}

float check_scale_step(double scale_step) {
  const auto step = static_cast<float>(scale_step);
  if (!(step >= 0.1f && step < 1.0f)) {
    refuse_value({op, "scale_step"}, "at least 0.1 and below 1", std::to_string(scale_step));
  }
  return step;
}

float check_epsilon(double epsilon) {
  const auto number = static_cast<float>(epsilon);
  if (!(number >= 0.0f && number < std::numeric_limits<float>::infinity())) {
    refuse_value({op, "epsilon"}, "a number from 0", std::to_string(epsilon));
  }
  return number;
}

// What is not a tensor.
twostream_tvl1_flow_args check_constants(double tau, double lambda, double theta, int64_t scales, double scale_step,
                                         int64_t warps, double epsilon, int64_t iterations, int64_t median,
                                         int64_t median_every, int64_t concurrent_pairs, bool share_rows) {
  twostream_tvl1_flow_args args{};
  args.tau = check_positive("tau", tau);
  args.lambda = check_positive("lambda_", lambda);
  args.theta = check_positive("theta", theta);
  args.epsilon = check_epsilon(epsilon);
  args.scales = check_count("scales", scales);
  args.scale_step = check_scale_step(scale_step);
  args.warps = check_count("warps", warps);
  args.iterations = check_count("iterations", iterations);
  args.median = check_median(median);
  args.median_every = check_count("median_every", median_every);
  args.concurrent_pairs = check_count("concurrent_pairs", concurrent_pairs);
  args.share_rows = share_rows ? 1 : 0;
  return args;
}

int64_t workspace_bytes(const twostream_tvl1_flow_args& args, const Tensor& frames) {
  const int64_t bytes =
      frames.for_cuda_kernels() ? twostream_tvl1_flow_workspace_cuda(&args) : twostream_tvl1_flow_workspace_cpu(&args);
  if (bytes < 0) {
    raise_status(op, static_cast<int>(bytes));
  }
  return bytes;
}

int64_t tvl1_flow_workspace(const py::object& frames, int64_t scales, double scale_step, int64_t concurrent_pairs) {
  const Tensor images = view_tensor(frames, {op, "frames"});
  twostream_tvl1_flow_args args =
      check_constants(1.0, 1.0, 1.0, scales, scale_step, 1, 0.0, 1, 0, 1, concurrent_pairs, false);
  args.frames = check_frames(images);
  return workspace_bytes(args, images);
}

void tvl1_flow(const py::object& frames, const py::object& pairs, const py::object& init, double tau, double lambda,
               double theta, int64_t scales, double scale_step, int64_t warps, double epsilon, int64_t iterations,
               int64_t median, int64_t median_every, int64_t concurrent_pairs, bool share_rows,
               const py::object& workspace, const py::object& out) {
  twostream_tvl1_flow_args args = check_constants(tau, lambda, theta, scales, scale_step, warps, epsilon, iterations,
                                                  median, median_every, concurrent_pairs, share_rows);
  const Tensor images = view_tensor(frames, {op, "frames"});
  args.frames = check_frames(images);
  const Tensor indices = view_tensor(pairs, {op, "pairs"});
  check_shape(indices, {op, "pairs"}, {-1, 2});
  check_contiguous(indices, {op, "pairs"});
  check_same_device(indices, {op, "pairs"}, images);
  if (!is_type(indices, kDLInt, 32)) {
    refuse_type({op, "pairs"}, "int32", describe(indices.view.dtype));
  }
  args.pairs = indices.data<int32_t>();
  args.pair_count = indices.shape(0);
  if (args.pair_count > 0 && images.shape(0) == 0) {
    refuse_value({op, "frames"}, "at least one frame", describe(images));
  }
  if (!init.is_none()) {
    args.init = check_fields(view_tensor(init, {op, "init"}), {op, "init"}, images, args.pair_count);
  }
  const Tensor output = view_tensor(out, {op, "out"});
  args.output = check_fields(output, {op, "out"}, images, args.pair_count);
  check_apart(output);
  const Tensor space = view_tensor(workspace, {op, "workspace"});
  check_shape(space, {op, "workspace"}, {-1});
  check_contiguous(space, {op, "workspace"});
  check_same_device(space, {op, "workspace"}, images);
  const int64_t bytes = workspace_bytes(args, images);
  if (!is_type(space, kDLUInt, 8) || space.shape(0) < bytes) {
    refuse_value({op, "workspace"}, std::to_string(bytes) + " bytes", describe(space));
  }
  args.workspace = space.data();
  run(op, twostream_tvl1_flow_cpu, twostream_tvl1_flow_cuda, args, frames, images);
}

}  // namespace

void bind_tvl1_flow(py::module_& module) {
  module.def("tvl1_flow_workspace", &tvl1_flow_workspace, py::arg("frames"), py::arg("scales"), py::arg("scale_step"),
             py::arg("concurrent_pairs"));
  module.def(op, &tvl1_flow, py::arg("frames"), py::arg("pairs"), py::arg("init"), py::arg("tau"), py::arg("lambda_"),
             py::arg("theta"), py::arg("scales"), py::arg("scale_step"), py::arg("warps"), py::arg("epsilon"),
             py::arg("iterations"), py::arg("median"), py::arg("median_every"), py::arg("concurrent_pairs"),
             py::arg("share_rows"), py::arg("workspace"), py::arg("out"));
}

}  // namespace twostream::python
