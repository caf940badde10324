// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/flow_stack.h"

#include "python/check.h"
#include "python/operators.h"

namespace twostream::python {
namespace {

constexpr const char* op = "flow_stack";

void flow_stack(const py::sequence& flow, const py::object& windows, const py::object& lo, const py::object& step,
                const py::object& mean, const py::object& out) {
  const Samples samples = collect_samples(flow, {op, "flow"}, any_flow);
  const Coding coding = check_coding(op, lo, step, samples);
  const CropTarget target = check_crop(op, windows, out, samples, 2 * int64_t{samples.length});
  const twostream_flow_stack_args args{samples.batch(), target.windows, target.windows_per_sample,
                                       coding.lo,       coding.step,    optional_per_field(mean, {op, "mean"}, samples),
                                       target.stack};
  run(op, twostream_flow_stack_cpu, twostream_flow_stack_cuda, args, samples.object, samples.first);
}

void flow_stack_backward(const py::object& gradient, const py::object& windows, const py::sequence& out) {
  constexpr const char* name = "flow_stack_backward";
  const Samples samples = collect_samples(out, {name, "out"}, float_flow);
  const CropTarget target = check_crop_gradient(name, windows, gradient, samples, 2 * int64_t{samples.length});
  const twostream_flow_stack_backward_args args{target.stack, target.windows, target.windows_per_sample,
                                                samples.batch()};
  run(name, twostream_flow_stack_backward_cpu, twostream_flow_stack_backward_cuda, args, samples.object, samples.first);
}

}  // namespace

void bind_flow_stack(py::module_& module) {
  module.def(op, &flow_stack, py::arg("flow"), py::arg("windows"), py::arg("lo"), py::arg("step"), py::arg("mean"),
             py::arg("out"));
  module.def("flow_stack_backward", &flow_stack_backward, py::arg("gradient"), py::arg("windows"), py::arg("out"));
}

}  // namespace twostream::python
