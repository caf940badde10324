// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/quantize_flow.h"

#include "core/quantize_flow.h"
#include "core/validate.h"
#include "cpu/fields.h"
#include "cpu/isa.h"

using namespace twostream;

int TWOSTREAM_CPU(quantize_flow)(const twostream_quantize_flow_args* args) {
  if (!valid_batch(args->flow, 1, 1) || !is_float(args->flow.dtype) || !same_sizes(args->flow, args->codes)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  with_float_type(args->flow.dtype, [&](auto in) {
    for_each_component(args->flow, [&](int64_t index, int64_t field, int component, int64_t output) {
      const twostream_sample& sample = args->flow.samples[index];
      const twostream_sample& codes = args->codes[index];
      const auto* plane = component_plane<const decltype(in)>(sample, field, component);
      const Statistics statistics = plane_statistics(plane, sample);
      const CodeRange range = code_range(statistics, args->bound);
      args->lo[output] = range.lo;
      args->step[output] = range.step;
      args->mean[output] = finite_mean(statistics);
      convert_plane(plane, sample, component_plane<uint8_t>(codes, field, component), codes,
                    [&](auto value) { return code_of(to_float(value), range); });
    });
  });
  return TWOSTREAM_SUCCESS;
}
