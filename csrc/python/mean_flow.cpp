// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/mean_flow.h"

#include "python/check.h"
#include "python/operators.h"

namespace twostream::python {
namespace {

// `op` is the operator that was called: the stacks subtract the means too.
void mean_flow(const std::string& op, const py::sequence& flow, const py::object& lo, const py::object& step,
               const py::object& out) {
  Call call{op.c_str()};
  const Samples samples = collect_samples(flow, {call, "flow"}, any_flow);
  const Coding coding = check_coding(call, lo, step, samples);
  const twostream_mean_flow_args args{samples.batch(), coding.lo, coding.step,
                                      required_per_field(out, {call, "out"}, samples, Access::writes)};
  run(call, twostream_mean_flow_cpu, twostream_mean_flow_cuda, args, samples.object, samples.first);
}

}  // namespace

void bind_mean_flow(py::module_& module) { module.def("mean_flow", &mean_flow); }

}  // namespace twostream::python
