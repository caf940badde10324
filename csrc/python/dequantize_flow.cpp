// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/dequantize_flow.h"

#include "python/check.h"
#include "python/operators.h"

namespace twostream::python {
namespace {

constexpr const char* op = "dequantize_flow";

void dequantize_flow(const py::sequence& codes, const py::object& lo, const py::object& step, const py::sequence& out) {
  Call call{op};
  const Samples samples = collect_samples(codes, {call, "codes"}, coded_flow);
  const Samples target = collect_outputs(out, {call, "out"}, float_flow);
  check_same_sizes(target, {call, "out"}, samples);
  const twostream_dequantize_flow_args args{samples.batch(), required_per_field(lo, {call, "lo"}, samples),
                                            required_per_field(step, {call, "step"}, samples), target.samples.data(),
                                            target.dtype};
  run(call, twostream_dequantize_flow_cpu, twostream_dequantize_flow_cuda, args, samples.object, samples.first);
}

}  // namespace

void bind_dequantize_flow(py::module_& module) { module.def(op, &dequantize_flow); }

}  // namespace twostream::python
