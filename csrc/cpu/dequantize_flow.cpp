// SPDX-License-Identifier: BSD-3-Clause
// Reads the codes once and writes four times their bytes (float32): the limit is the writing.
#include "twostream/dequantize_flow.h"

#include "core/affine.h"
#include "core/validate.h"
#include "cpu/fields.h"
#include "cpu/isa.h"

using namespace twostream;

namespace {

template <typename Out>
void dequantize_field(const twostream_dequantize_flow_args& args, int64_t index, int64_t field, int64_t range,
                      bool streaming) {
  const twostream_sample& sample = args.codes.samples[index];
  const twostream_sample& target = args.output[index];
  const Affine affines[2] = {{args.step[2 * range], args.lo[2 * range]},
                             {args.step[2 * range + 1], args.lo[2 * range + 1]}};
  const Extent extent = extent_of(sample, has_gaps(sample) || has_gaps(target));
  for_each_tile<uint8_t>(sample, field, extent,
                         [&](const uint8_t* const(&rows)[2], int32_t count, int64_t row, int64_t column) {
                           Out values[2][tile_pixels];
                           convert_row(affines[0], false, rows[0], count, values[0]);
                           convert_row(affines[1], false, rows[1], count, values[1]);
                           write_tile(values, count, pixel_of<Out>(target, field, row, column), target.column_stride,
                                      target.component_stride, streaming);
                         });
}

}  // namespace

int TWOSTREAM_CPU(dequantize_flow)(const twostream_dequantize_flow_args* args) {
  if (!valid(*args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  with_float_type(args->output_dtype, [&](auto out) {
    using Out = decltype(out);
    const bool streaming = exceeds_cache(args->codes, sizeof(Out));
    for_each_field(args->codes, [&](int64_t index, int64_t field, int64_t range) {
      dequantize_field<Out>(*args, index, field, range, streaming);
      if (streaming) {
        finish_streaming();
      }
    });
  });
  return TWOSTREAM_SUCCESS;
}
