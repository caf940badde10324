// SPDX-License-Identifier: BSD-3-Clause
// Reads every field, for its range and for its codes (the second time from the cache), and writes a quarter of its
// bytes.
#include "twostream/quantize_flow.h"

#include "core/quantize_flow.h"
#include "core/validate.h"
#include "cpu/fields.h"
#include "cpu/isa.h"

using namespace twostream;

namespace {

#if defined(__AVX2__)
__m256i codes_of(__m256 values, __m256 lo, __m256 codes_per_pixel) {
  const __m256 known = _mm256_and_ps(values, _mm256_cmp_ps(values, values, _CMP_ORD_Q));
  const __m256 codes = _mm256_mul_ps(_mm256_sub_ps(known, lo), codes_per_pixel);
  const __m256 bounded = _mm256_min_ps(_mm256_max_ps(codes, _mm256_setzero_ps()), _mm256_set1_ps(255.0f));
  return _mm256_cvtps_epi32(bounded);  // to the nearest, ties to even, as rintf
}
#endif

// Codes values of alternating components.
template <int components, typename In>
void code_values(const In* values, int64_t count, const CodeRange* ranges, uint8_t* codes) {
  int64_t done = 0;
#if defined(__AVX2__)
  alignas(32) float lows[8];
  alignas(32) float scales[8];
  for (int lane = 0; lane < 8; ++lane) {
    lows[lane] = ranges[lane % components].lo;
    scales[lane] = ranges[lane % components].codes_per_pixel;
  }
  const __m256 lo = _mm256_load_ps(lows);
  const __m256 scale = _mm256_load_ps(scales);
  for (; done + 16 <= count; done += 16) {
    const __m256i words = _mm256_packus_epi32(codes_of(load_eight<false>(values + done), lo, scale),
                                              codes_of(load_eight<false>(values + done + 8), lo, scale));
    const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + done),
                     _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1)));
  }
#endif
  for (; done < count; ++done) {
    codes[done] = code_of(to_float(values[done]), ranges[done % components]);
  }
}

bool is_interleaved(const twostream_sample& sample) {
  return sample.column_stride == 2 && sample.component_stride == 1;
}

// From the end to the beginning: what was read last lies nearest in the cache.
template <typename In>
void code_field(const twostream_sample& sample, const twostream_sample& target, int64_t field,
                const CodeRange* ranges) {
  const Extent extent = extent_of(sample, has_gaps(sample) || has_gaps(target));
  const bool interleaved = is_interleaved(sample) && is_interleaved(target);
  if (!interleaved && (sample.column_stride != 1 || target.column_stride != 1)) {
    for_each_tile<In>(sample, field, extent,
                      [&](const In* const(&rows)[2], int32_t count, int64_t row, int64_t column) {
                        uint8_t codes[2][tile_pixels];
                        code_values<1>(rows[0], count, ranges, codes[0]);
                        code_values<1>(rows[1], count, ranges + 1, codes[1]);
                        write_tile(codes, count, pixel_of<uint8_t>(target, field, row, column), target.column_stride,
                                   target.component_stride, false);
                      });
    return;
  }
  constexpr int64_t part = 4096;
  for (int64_t row = extent.rows - 1; row >= 0; --row) {
    for (int64_t column = (extent.columns - 1) / part * part; column >= 0; column -= part) {
      const int64_t count = extent.columns - column < part ? extent.columns - column : part;
      const In* from = pixel_of<const In>(sample, field, row, column);
      auto* to = pixel_of<uint8_t>(target, field, row, column);
      if (interleaved) {
        code_values<2>(from, 2 * count, ranges, to);
      } else {
        code_values<1>(from, count, ranges, to);
        code_values<1>(from + sample.component_stride, count, ranges + 1, to + target.component_stride);
      }
    }
  }
}

template <typename In>
void quantize_field(const twostream_quantize_flow_args& args, int64_t index, int64_t field, int64_t output) {
  const twostream_sample& sample = args.flow.samples[index];
  Statistics statistics[2] = {no_values(), no_values()};
  add_field<In>(sample, field, statistics);
  const CodeRange ranges[2] = {code_range(statistics[0], args.bound), code_range(statistics[1], args.bound)};
  code_field<In>(sample, args.codes[index], field, ranges);
  for (int component = 0; component < 2; ++component) {
    args.lo[2 * output + component] = ranges[component].lo;
    args.step[2 * output + component] = ranges[component].step;
    args.mean[2 * output + component] = finite_mean(statistics[component]);
  }
}

}  // namespace

int TWOSTREAM_CPU(quantize_flow)(const twostream_quantize_flow_args* args) {
  if (!valid_batch(args->flow, 1, 1) || !is_float(args->flow.dtype) || !same_sizes(args->flow, args->codes)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  with_float_type(args->flow.dtype, [&](auto in) {
    for_each_field(args->flow, [&](int64_t index, int64_t field, int64_t output) {
      quantize_field<decltype(in)>(*args, index, field, output);
    });
  });
  return TWOSTREAM_SUCCESS;
}
