// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/quantize_flow.h"

#include <limits>
#include <optional>

#include "python/check.h"
#include "python/operators.h"

namespace twostream::python {
namespace {

constexpr const char* op = "quantize_flow";

void quantize_flow(const py::sequence& flow, std::optional<float> bound, const py::sequence& codes,
                   const py::object& lo, const py::object& step, const py::object& mean) {
  Call call{op};
  if (bound && !(*bound > 0.0f && *bound < std::numeric_limits<float>::infinity())) {
    refuse_value({call, "bound"}, "a positive finite number of pixels, or None", std::to_string(*bound));
  }
  const Samples samples = collect_samples(flow, {call, "flow"}, float_flow);
  const Samples coded = collect_outputs(codes, {call, "out.codes"}, coded_flow);
  check_same_sizes(coded, {call, "out.codes"}, samples);
  const twostream_quantize_flow_args args{samples.batch(),
                                          bound.value_or(-1.0f),
                                          coded.samples.data(),
                                          required_per_field(lo, {call, "out.lo"}, samples, Access::writes),
                                          required_per_field(step, {call, "out.step"}, samples, Access::writes),
                                          required_per_field(mean, {call, "out.mean"}, samples, Access::writes)};
  run(call, twostream_quantize_flow_cpu, twostream_quantize_flow_cuda, args, samples.object, samples.first);
}

}  // namespace

void bind_quantize_flow(py::module_& module) { module.def(op, &quantize_flow); }

}  // namespace twostream::python
