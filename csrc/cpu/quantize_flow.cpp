// SPDX-License-Identifier: BSD-3-Clause
// Reads every field, for its range and for its codes (the second time from the cache), and writes a quarter of its
// bytes.
#include "twostream/quantize_flow.h"

#include <cmath>

#include "core/quantize_flow.h"
#include "core/validate.h"
#include "cpu/fields.h"
#include "cpu/isa.h"

using namespace twostream;

namespace {

// Whether all values are finite and within their range: then nothing needs to be bounded.
bool is_within(const Statistics& statistics, int64_t values, float bound) {
  return statistics.count == values && !(bound > 0.0f) && std::isfinite(statistics.highest - statistics.lowest);
}

#if defined(__AVX2__)
template <bool within>
__m256i codes_of(__m256 values, __m256 lo, __m256 codes_per_pixel) {
  if (within) {
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_sub_ps(values, lo), codes_per_pixel));
  }
  const __m256 known = _mm256_and_ps(values, _mm256_cmp_ps(values, values, _CMP_ORD_Q));
  const __m256 codes = _mm256_mul_ps(_mm256_sub_ps(known, lo), codes_per_pixel);
  const __m256 bounded = _mm256_min_ps(_mm256_max_ps(codes, _mm256_setzero_ps()), _mm256_set1_ps(255.0f));
  return _mm256_cvtps_epi32(bounded);  // to the nearest, ties to even, as rintf
}
#endif

// Codes values of alternating components.
template <int components, bool within, typename In>
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
    const __m256i words = _mm256_packus_epi32(codes_of<within>(load_eight<false>(values + done), lo, scale),
                                              codes_of<within>(load_eight<false>(values + done + 8), lo, scale));
    const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + done),
                     _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1)));
  }
#endif
  for (; done < count; ++done) {
    codes[done] = code_of(to_float(values[done]), ranges[done % components]);
  }
}

// Codes the rows that begin at `from` and `to`, of alternating components, from the end to the beginning: what was read
// last lies nearest in the cache.
template <int components, bool within, typename In>
void code_rows(const In* from, int64_t from_stride, const Extent& extent, const CodeRange* ranges, uint8_t* to,
               int64_t to_stride) {
  constexpr int64_t part = 8192;
  const int64_t values = extent.columns * components;
  for (int64_t row = extent.rows - 1; row >= 0; --row) {
    for (int64_t first = (values - 1) / part * part; first >= 0; first -= part) {
      const int64_t count = values - first < part ? values - first : part;
      code_values<components, within>(from + row * from_stride + first, count, ranges, to + row * to_stride + first);
    }
  }
}

bool is_interleaved(const twostream_sample& sample) {
  return sample.column_stride == 2 && sample.component_stride == 1;
}

template <typename In>
void code_tiles(const twostream_sample& sample, const twostream_sample& target, int64_t field, const Extent& extent,
                const CodeRange* ranges) {
  for_each_tile<In>(sample, field, extent, [&](const In* const(&rows)[2], int32_t count, int64_t row, int64_t column) {
    uint8_t codes[2][tile_pixels];
    code_values<1, false>(rows[0], count, ranges, codes[0]);
    code_values<1, false>(rows[1], count, ranges + 1, codes[1]);
    write_tile(codes, count, pixel_of<uint8_t>(target, field, row, column), target.column_stride,
               target.component_stride, false);
  });
}

template <typename In>
void quantize_field(const twostream_quantize_flow_args& args, int64_t index, int64_t field, int64_t output) {
  const twostream_sample& sample = args.flow.samples[index];
  const twostream_sample& target = args.codes[index];
  const Extent extent = extent_of(sample, has_gaps(sample) || has_gaps(target));
  const int64_t pixels = extent.rows * extent.columns;
  const In* from = pixel_of<const In>(sample, field, 0, 0);
  auto* to = pixel_of<uint8_t>(target, field, 0, 0);
  Statistics statistics[2] = {no_values(), no_values()};
  CodeRange ranges[2];
  if (sample.column_stride == 1 && target.column_stride == 1) {
    // One plane after the other: half a field stays in the cache where a whole one would not.
    for (int component = 0; component < 2; ++component) {
      const In* plane = from + component * sample.component_stride;
      for (int64_t row = 0; row < extent.rows; ++row) {
        add_values<1>(plane + row * sample.row_stride, extent.columns, statistics + component);
      }
      ranges[component] = code_range(statistics[component], args.bound);
      const auto code =
          is_within(statistics[component], pixels, args.bound) ? code_rows<1, true, In> : code_rows<1, false, In>;
      code(plane, sample.row_stride, extent, ranges + component, to + component * target.component_stride,
           target.row_stride);
    }
  } else {
    add_field<In>(sample, field, statistics);
    for (int component = 0; component < 2; ++component) {
      ranges[component] = code_range(statistics[component], args.bound);
    }
    if (is_interleaved(sample) && is_interleaved(target)) {
      const bool within = is_within(statistics[0], pixels, args.bound) && is_within(statistics[1], pixels, args.bound);
      const auto code = within ? code_rows<2, true, In> : code_rows<2, false, In>;
      code(from, sample.row_stride, extent, ranges, to, target.row_stride);
    } else {
      code_tiles<In>(sample, target, field, extent, ranges);
    }
  }
  for (int component = 0; component < 2; ++component) {
    args.lo[2 * output + component] = ranges[component].lo;
    args.step[2 * output + component] = ranges[component].step;
    args.mean[2 * output + component] = finite_mean(statistics[component]);
  }
}

}  // namespace

int TWOSTREAM_CPU(quantize_flow)(const twostream_quantize_flow_args* args) {
  if (!valid(*args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  with_float_type(args->flow.dtype, [&](auto in) {
    for_each_field(args->flow, [&](int64_t index, int64_t field, int64_t output) {
      quantize_field<decltype(in)>(*args, index, field, output);
    });
  });
  return TWOSTREAM_SUCCESS;
}
