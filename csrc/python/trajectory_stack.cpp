// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/trajectory_stack.h"

#include "python/check.h"
#include "python/operators.h"

namespace twostream::python {
namespace {

constexpr const char* op = "trajectory_stack";

void trajectory_stack(const py::sequence& flow, const py::object& windows, const py::object& lo, const py::object& step,
                      const py::object& mean, bool bidirectional, const py::object& out) {
  const Samples samples = collect_samples(flow, {op, "flow"}, any_flow);
  check_halves({op, "flow"}, samples, bidirectional);
  const Coding coding = check_coding(op, lo, step, samples);
  const CropTarget target = check_crop(op, windows, out, samples, 2 * int64_t{samples.length});
  const twostream_trajectory_stack_args args{
      samples.batch(), target.windows, target.windows_per_sample,
      coding.lo,       coding.step,    optional_per_field(mean, {op, "mean"}, samples),
      bidirectional,   target.stack};
  run(op, twostream_trajectory_stack_cpu, twostream_trajectory_stack_cuda, args, samples.object, samples.first);
}

}  // namespace

void bind_trajectory_stack(py::module_& module) {
  module.def(op, &trajectory_stack, py::arg("flow"), py::arg("windows"), py::arg("lo"), py::arg("step"),
             py::arg("mean"), py::arg("bidirectional"), py::arg("out"));
}

}  // namespace twostream::python
