// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/mean_flow.h"

#include "core/mean_flow.h"
#include "core/validate.h"
#include "cpu/fields.h"
#include "cpu/isa.h"

using namespace twostream;

namespace {

// Every value counts here, also NaN: a spoiled field says so in its mean.
template <typename In>
double plane_sum(const In* plane, const twostream_sample& sample) {
  double sum = 0.0;
  for (int32_t row = 0; row < sample.height; ++row) {
    for (int32_t column = 0; column < sample.width; ++column) {
      sum += static_cast<double>(to_float(plane[row * sample.row_stride + column * sample.column_stride]));
    }
  }
  return sum;
}

}  // namespace

int TWOSTREAM_CPU(mean_flow)(const twostream_mean_flow_args* args) {
  if (!valid_batch(args->flow, 1, 1) || !valid_coding(args->flow, args->lo, args->step)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const bool coded = args->flow.dtype == TWOSTREAM_UINT8;
  with_any_type(args->flow.dtype, [&](auto in) {
    for_each_component(args->flow, [&](int64_t index, int64_t field, int component, int64_t output) {
      const twostream_sample& sample = args->flow.samples[index];
      const double sum = plane_sum(component_plane<const decltype(in)>(sample, field, component), sample);
      args->output[output] = mean_displacement(sum, static_cast<int64_t>(sample.height) * sample.width,
                                               coded ? args->lo : nullptr, coded ? args->step : nullptr, output);
    });
  });
  return TWOSTREAM_SUCCESS;
}
