// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/quantize_flow.h"

#include <pybind11/stl.h>

#include <limits>
#include <optional>

#include "python/check.h"
#include "python/operators.h"

namespace twostream::python {
namespace {

constexpr const char* op = "quantize_flow";

void quantize_flow(const py::sequence& flow, std::optional<float> bound, const py::sequence& codes,
                   const py::object& lo, const py::object& step, const py::object& mean) {
  if (bound && !(*bound > 0.0f && *bound < std::numeric_limits<float>::infinity())) {
    refuse_value({op, "bound"}, "a positive finite number of pixels, or None", std::to_string(*bound));
  }
  const Samples samples = collect_samples(flow, {op, "flow"}, float_flow);
  const Samples coded = collect_samples(codes, {op, "codes"}, coded_flow);
  check_same_sizes(coded, {op, "codes"}, samples);
  check_writable(coded, {op, "codes"});
  const twostream_quantize_flow_args args{samples.batch(),
                                          bound.value_or(-1.0f),
                                          coded.samples.data(),
                                          required_per_field(lo, {op, "lo"}, samples),
                                          required_per_field(step, {op, "step"}, samples),
                                          required_per_field(mean, {op, "mean"}, samples)};
  run(op, twostream_quantize_flow_cpu, twostream_quantize_flow_cuda, args, samples.object, samples.first);
}

}  // namespace

void bind_quantize_flow(py::module_& module) {
  module.def(op, &quantize_flow, py::arg("flow"), py::arg("bound"), py::arg("codes"), py::arg("lo"), py::arg("step"),
             py::arg("mean"));
}

}  // namespace twostream::python
