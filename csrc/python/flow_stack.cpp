// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/flow_stack.h"

#include "python/check.h"
#include "python/operators.h"

namespace twostream::python {
namespace {

constexpr const char* op = "flow_stack";
constexpr const char* backward_op = "flow_stack_backward";

void flow_stack(const py::sequence& flow, const py::object& windows, const py::object& lo, const py::object& step,
                const py::object& mean, const py::object& camera, const py::object& out) {
  Call call{op};
  const Samples samples = collect_samples(flow, {call, "flow"}, any_flow);
  const Coding coding = check_coding(call, lo, step, samples);
  const CropTarget target = check_crop(call, windows, out, samples, 2 * int64_t{samples.length});
  const Subtraction subtraction = check_subtraction(call, mean, camera, samples);
  const twostream_flow_stack_args args{samples.batch(), target.windows,    target.windows_per_sample,
                                       coding.lo,       coding.step,       subtraction.mean,
                                       target.stack,    subtraction.camera};
  run(call, twostream_flow_stack_cpu, twostream_flow_stack_cuda, args, samples.object, samples.first);
}

void flow_stack_backward(const py::object& gradient, const py::object& windows, const py::sequence& out) {
  Call call{backward_op};
  const Samples samples = collect_outputs(out, {call, "out"}, float_flow);
  const CropTarget target = check_crop_gradient(call, windows, gradient, samples, 2 * int64_t{samples.length});
  const twostream_flow_stack_backward_args args{target.stack, target.windows, target.windows_per_sample,
                                                samples.batch()};
  run(call, twostream_flow_stack_backward_cpu, twostream_flow_stack_backward_cuda, args, samples.object, samples.first);
}

}  // namespace

void bind_flow_stack(py::module_& module) {
  module.def(op, &flow_stack);
  module.def(backward_op, &flow_stack_backward);
}

}  // namespace twostream::python
