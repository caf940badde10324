// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/mean_flow.h"

#include "python/check.h"
#include "python/operators.h"

namespace twostream::python {
namespace {

constexpr const char* op = "mean_flow";

void mean_flow(const py::sequence& flow, const py::object& lo, const py::object& step, const py::object& out) {
  const Samples samples = collect_samples(flow, {op, "flow"}, any_flow);
  const Coding coding = check_coding(op, lo, step, samples);
  const twostream_mean_flow_args args{samples.batch(), coding.lo, coding.step,
                                      required_per_field(out, {op, "out"}, samples)};
  run(op, twostream_mean_flow_cpu, twostream_mean_flow_cuda, args, samples.object, samples.first);
}

}  // namespace

void bind_mean_flow(py::module_& module) {
  module.def(op, &mean_flow, py::arg("flow"), py::arg("lo"), py::arg("step"), py::arg("out"));
}

}  // namespace twostream::python
