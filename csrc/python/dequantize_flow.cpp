// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/dequantize_flow.h"

#include "python/check.h"
#include "python/operators.h"

namespace twostream::python {
namespace {

constexpr const char* op = "dequantize_flow";

void dequantize_flow(const py::sequence& codes, const py::object& lo, const py::object& step, const py::sequence& out) {
  const Samples samples = collect_samples(codes, {op, "codes"}, coded_flow);
  const Samples target = collect_samples(out, {op, "out"}, float_flow);
  check_same_sizes(target, {op, "out"}, samples);
  check_writable(target, {op, "out"});
  const twostream_dequantize_flow_args args{samples.batch(), required_per_field(lo, {op, "lo"}, samples),
                                            required_per_field(step, {op, "step"}, samples), target.samples.data(),
                                            target.dtype};
  run(op, twostream_dequantize_flow_cpu, twostream_dequantize_flow_cuda, args, samples.object, samples.first);
}

}  // namespace

void bind_dequantize_flow(py::module_& module) {
  module.def(op, &dequantize_flow, py::arg("codes"), py::arg("lo"), py::arg("step"), py::arg("out"));
}

}  // namespace twostream::python
