// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/dequantize_flow.h"

#include "core/affine.h"
#include "core/validate.h"
#include "cpu/fields.h"
#include "cpu/isa.h"

using namespace twostream;

int TWOSTREAM_CPU(dequantize_flow)(const twostream_dequantize_flow_args* args) {
  if (!valid_batch(args->codes, 1, 1) || args->codes.dtype != TWOSTREAM_UINT8 ||
      !valid_coding(args->codes, args->lo, args->step) || !same_sizes(args->codes, args->output) ||
      !is_float(args->output_dtype)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  with_float_type(args->output_dtype, [&](auto out) {
    using Out = decltype(out);
    for_each_component(args->codes, [&](int64_t index, int64_t field, int component, int64_t range) {
      const twostream_sample& codes = args->codes.samples[index];
      const twostream_sample& output = args->output[index];
      const Affine affine{args->step[range], args->lo[range]};
      convert_plane(component_plane<const uint8_t>(codes, field, component), codes,
                    component_plane<Out>(output, field, component), output,
                    [&](uint8_t code) { return from_float<Out>(apply(affine, to_float(code))); });
    });
  });
  return TWOSTREAM_SUCCESS;
}
