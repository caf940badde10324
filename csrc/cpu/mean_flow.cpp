// SPDX-License-Identifier: BSD-3-Clause
// Reads every field once and writes next to nothing: the limit is a read of the same bytes.
#include "twostream/mean_flow.h"

#include "core/mean_flow.h"
#include "core/validate.h"
#include "cpu/fields.h"
#include "cpu/isa.h"
#include "cpu/reduce.h"

using namespace twostream;

namespace {

template <typename In>
void add_field(const twostream_sample& sample, int64_t field, double* sums) {
  const Extent extent = extent_of(sample, has_gaps(sample));
  if (sample.column_stride == 2 && sample.component_stride == 1) {
    for (int64_t row = 0; row < extent.rows; ++row) {
      add_pairs(pixel_of<const In>(sample, field, row, 0), extent.columns, sums);
    }
    return;
  }
  for_each_tile<In>(sample, field, extent, [&](const In* const(&rows)[2], int32_t count, int64_t, int64_t) {
    sums[0] += sum_row(rows[0], count);
    sums[1] += sum_row(rows[1], count);
  });
}

}  // namespace

int TWOSTREAM_CPU(mean_flow)(const twostream_mean_flow_args* args) {
  if (!valid_batch(args->flow, 1, 1) || !valid_coding(args->flow, args->lo, args->step)) {
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
