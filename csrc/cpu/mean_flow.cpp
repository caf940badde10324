// SPDX-License-Identifier: BSD-3-Clause
// Reads every field once and writes next to nothing: the limit is a read of the same bytes.
#include "twostream/mean_flow.h"

#include "core/mean_flow.h"
#include "core/validate.h"
#include "cpu/fields.h"
#include "cpu/isa.h"

using namespace twostream;

int TWOSTREAM_CPU(mean_flow)(const twostream_mean_flow_args* args) {
  if (!valid(*args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const bool coded = args->flow.dtype == TWOSTREAM_UINT8;
  with_any_type(args->flow.dtype, [&](auto in) {
    using In = decltype(in);
    for_each_field(args->flow, [&](int64_t index, int64_t field, int64_t output) {
      const twostream_sample& sample = args->flow.samples[index];
      double sums[2] = {0.0, 0.0};
      add_field<In>(sample, field, sums);
      for (int component = 0; component < 2; ++component) {
        const int64_t place = 2 * output + component;
        args->output[place] = mean_displacement(sums[component], static_cast<int64_t>(sample.height) * sample.width,
                                                coded ? args->lo : nullptr, coded ? args->step : nullptr, place);
      }
    });
  });
  return TWOSTREAM_SUCCESS;
}
