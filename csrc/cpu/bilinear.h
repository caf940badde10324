// SPDX-License-Identifier: BSD-3-Clause
// A field sampled bilinearly at a row of positions: core/trajectory_stack.h's sample_at for many pixels at once.
//
// What costs time is fetching the four neighbours, so each layout has its own way to fetch them, eight positions at a
// time. Interleaved bytes: x and y of two neighbours are one 32-bit word, so two words make a sample. Planar bytes: a
// word holds four pixels of one component, of which two are wanted. Interleaved floats: two neighbours are one 128-bit
// word. Planar floats: one word a neighbour. Everything else takes the scalar definition.
// A word never reaches past its row: near the right border it starts further left and the fraction or a shift makes up
// for that. A neighbour of weight 0 adds exactly nothing among bytes; among floats it may be NaN, and is masked.
#pragma once

#include <cstring>
#include <type_traits>

#include "core/trajectory_stack.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace twostream {

// Positions are processed in groups of this many; a row of them is padded to whole groups with any clamped positions.
constexpr int32_t sample_group = 8;

// A row of 2-vectors as two arrays.
struct Vector2Row {
  float* x;
  float* y;
};

template <typename In>
void sample_row_strided(const StridedField<In>& field, const Vector2Row& positions, int32_t count,
                        const Vector2Row& samples) {
  for (int32_t pixel = 0; pixel < count; ++pixel) {
    const Vector2 raw = sample_at(field, {positions.x[pixel], positions.y[pixel]});
    samples.x[pixel] = raw.x;
    samples.y[pixel] = raw.y;
  }
}

#if defined(__AVX2__)

// Whether every offset inside a field fits 32 bits.
inline bool has_small_offsets(const twostream_sample& sample) {
  const auto extent = [](int32_t size, int64_t stride) {
    return size > 1 ? static_cast<double>(size - 1) * static_cast<double>(stride) : 0.0;
  };
  return extent(sample.height, sample.row_stride) + extent(sample.width, sample.column_stride) +
             static_cast<double>(sample.component_stride) <
         static_cast<double>(INT32_MAX / 2);
}

inline __m256 interpolate8(__m256 from, __m256 to, __m256 fraction) {
  return _mm256_fmadd_ps(fraction, _mm256_sub_ps(to, from), from);
}

// Eight 32-bit words, each at its own element offset. Eight loads: the gather instruction takes half as long again on
// Zen 3.
template <typename T>
__m256i load_words(const T* data, __m256i offsets) {
  alignas(32) uint32_t offset[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(offset), offsets);
  const auto word = [&](int lane) {
    int32_t bits;
    memcpy(&bits, data + offset[lane], sizeof(bits));
    return bits;
  };
  return _mm256_setr_epi32(word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7));
}

// Two neighbours of each of eight positions, for both components.
struct Neighbours {
  __m256 left_x;
  __m256 right_x;
  __m256 left_y;
  __m256 right_y;
};

struct InterleavedBytes {
  const uint8_t* data;
  int32_t width;

  // The columns to fetch from, and what is left of the coordinate: 1 at the last column.
  __m256i column(__m256 x) const { return _mm256_min_epi32(_mm256_cvttps_epi32(x), _mm256_set1_epi32(width - 2)); }

  static __m256 byte_of(__m256i words, int index) {
    const __m256i moved = index == 0 ? words : _mm256_srli_epi32(words, 8 * index);
    return _mm256_cvtepi32_ps(index == 3 ? moved : _mm256_and_si256(moved, _mm256_set1_epi32(0xff)));
  }

  Neighbours fetch(__m256i row_offset, __m256i column, __m256 /*fraction*/) const {
    const __m256i offset = _mm256_add_epi32(row_offset, _mm256_add_epi32(column, column));
    const __m256i words = load_words(data, offset);
    return {byte_of(words, 0), byte_of(words, 2), byte_of(words, 1), byte_of(words, 3)};
  }
};

struct PlanarBytes {
  const uint8_t* data;
  int64_t component_stride;
  int32_t width;

  __m256i column(__m256 x) const { return _mm256_cvttps_epi32(x); }

  // The byte `shift` bits up, and the one after it, which is 0 past the word: its weight is then 0.
  static void bytes_of(__m256i words, __m256i shift, __m256& left, __m256& right) {
    const __m256i mask = _mm256_set1_epi32(0xff);
    const __m256i moved = _mm256_srlv_epi32(words, shift);
    left = _mm256_cvtepi32_ps(_mm256_and_si256(moved, mask));
    right = _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(moved, 8), mask));
  }

  Neighbours fetch(__m256i row_offset, __m256i column, __m256 /*fraction*/) const {
    const __m256i start = _mm256_min_epi32(column, _mm256_set1_epi32(width - 4));
    const __m256i shift = _mm256_slli_epi32(_mm256_sub_epi32(column, start), 3);
    const __m256i offset = _mm256_add_epi32(row_offset, start);
    Neighbours neighbours;
    bytes_of(load_words(data, offset), shift, neighbours.left_x, neighbours.right_x);
    bytes_of(load_words(data + component_stride, offset), shift, neighbours.left_y, neighbours.right_y);
    return neighbours;
  }
};

struct InterleavedFloats {
  const float* data;
  int32_t width;

  __m256i column(__m256 x) const { return _mm256_cvttps_epi32(x); }

  Neighbours fetch(__m256i row_offset, __m256i column, __m256 fraction) const {
    const __m256i start = _mm256_min_epi32(column, _mm256_set1_epi32(width - 2));
    alignas(32) uint32_t offsets[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(offsets),
                       _mm256_add_epi32(row_offset, _mm256_add_epi32(start, start)));
    // Lane pairs (0, 4), (1, 5), ...: two unpacks then bring eight values of a kind into order.
    const auto pair = [&](int lane) {
      return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(data + offsets[lane])),
                                  _mm_loadu_ps(data + offsets[lane + 4]), 1);
    };
    const __m256 p0 = pair(0), p1 = pair(1), p2 = pair(2), p3 = pair(3);
    const __m256 left01 = _mm256_unpacklo_ps(p0, p1), left23 = _mm256_unpacklo_ps(p2, p3);
    const __m256 right01 = _mm256_unpackhi_ps(p0, p1), right23 = _mm256_unpackhi_ps(p2, p3);
    const auto low = [](__m256 a, __m256 b) { return _mm256_shuffle_ps(a, b, _MM_SHUFFLE(1, 0, 1, 0)); };
    const auto high = [](__m256 a, __m256 b) { return _mm256_shuffle_ps(a, b, _MM_SHUFFLE(3, 2, 3, 2)); };
    const __m256 first_x = low(left01, left23), first_y = high(left01, left23);
    const __m256 second_x = low(right01, right23), second_y = high(right01, right23);
    const __m256 moved = _mm256_castsi256_ps(_mm256_cmpgt_epi32(column, start));  // the last column
    const __m256 between = _mm256_cmp_ps(fraction, _mm256_setzero_ps(), _CMP_GT_OQ);
    Neighbours neighbours;
    neighbours.left_x = _mm256_blendv_ps(first_x, second_x, moved);
    neighbours.left_y = _mm256_blendv_ps(first_y, second_y, moved);
    neighbours.right_x = _mm256_blendv_ps(neighbours.left_x, second_x, between);
    neighbours.right_y = _mm256_blendv_ps(neighbours.left_y, second_y, between);
    return neighbours;
  }
};

struct PlanarFloats {
  const float* data;
  int64_t component_stride;

  __m256i column(__m256 x) const { return _mm256_cvttps_epi32(x); }

  Neighbours fetch(__m256i row_offset, __m256i column, __m256 fraction) const {
    const __m256i left = _mm256_add_epi32(row_offset, column);
    const __m256 between = _mm256_cmp_ps(fraction, _mm256_setzero_ps(), _CMP_GT_OQ);
    const __m256i right = _mm256_sub_epi32(left, _mm256_castps_si256(between));
    return {_mm256_castsi256_ps(load_words(data, left)), _mm256_castsi256_ps(load_words(data, right)),
            _mm256_castsi256_ps(load_words(data + component_stride, left)),
            _mm256_castsi256_ps(load_words(data + component_stride, right))};
  }
};

template <typename Layout>
void sample_row_fast(const Layout& layout, int32_t row_stride, const Vector2Row& positions, int32_t count,
                     const Vector2Row& samples) {
  const __m256i stride = _mm256_set1_epi32(row_stride);
  for (int32_t pixel = 0; pixel < count; pixel += sample_group) {
    const __m256 x = _mm256_loadu_ps(positions.x + pixel);
    const __m256 y = _mm256_loadu_ps(positions.y + pixel);
    const __m256i column = layout.column(x);
    const __m256i row = _mm256_cvttps_epi32(y);
    const __m256 fraction_x = _mm256_sub_ps(x, _mm256_cvtepi32_ps(column));
    const __m256 fraction_y = _mm256_sub_ps(y, _mm256_cvtepi32_ps(row));
    const __m256i below = _mm256_castps_si256(_mm256_cmp_ps(fraction_y, _mm256_setzero_ps(), _CMP_GT_OQ));
    const __m256i top_offset = _mm256_mullo_epi32(row, stride);
    const __m256i bottom_offset = _mm256_add_epi32(top_offset, _mm256_and_si256(below, stride));
    const Neighbours top = layout.fetch(top_offset, column, fraction_x);
    const Neighbours bottom = layout.fetch(bottom_offset, column, fraction_x);
    _mm256_storeu_ps(samples.x + pixel,
                     interpolate8(interpolate8(top.left_x, top.right_x, fraction_x),
                                  interpolate8(bottom.left_x, bottom.right_x, fraction_x), fraction_y));
    _mm256_storeu_ps(samples.y + pixel,
                     interpolate8(interpolate8(top.left_y, top.right_y, fraction_x),
                                  interpolate8(bottom.left_y, bottom.right_y, fraction_x), fraction_y));
  }
}

// False if the layout has no fast way.
inline bool try_sample_row(const StridedField<uint8_t>& field, const twostream_sample& sample, int32_t row_stride,
                           const Vector2Row& positions, int32_t count, const Vector2Row& samples) {
  if (field.component_stride == 1 && field.column_stride == 2 && sample.width >= 2) {
    sample_row_fast(InterleavedBytes{field.data, sample.width}, row_stride, positions, count, samples);
    return true;
  }
  if (field.column_stride == 1 && sample.width >= 4) {
    sample_row_fast(PlanarBytes{field.data, field.component_stride, sample.width}, row_stride, positions, count,
                    samples);
    return true;
  }
  return false;
}

inline bool try_sample_row(const StridedField<float>& field, const twostream_sample& sample, int32_t row_stride,
                           const Vector2Row& positions, int32_t count, const Vector2Row& samples) {
  if (field.component_stride == 1 && field.column_stride == 2 && sample.width >= 2) {
    sample_row_fast(InterleavedFloats{field.data, sample.width}, row_stride, positions, count, samples);
    return true;
  }
  if (field.column_stride == 1) {
    sample_row_fast(PlanarFloats{field.data, field.component_stride}, row_stride, positions, count, samples);
    return true;
  }
  return false;
}

#endif  // __AVX2__

// Samples `count` positions, and may sample the padding up to a whole group.
template <typename In>
void sample_row(const StridedField<In>& field, const twostream_sample& sample, const Vector2Row& positions,
                int32_t count, const Vector2Row& samples) {
#if defined(__AVX2__)
  if constexpr (std::is_same_v<In, uint8_t> || std::is_same_v<In, float>) {
    const auto row_stride = static_cast<int32_t>(sample.height > 1 ? sample.row_stride : 0);
    if (has_small_offsets(sample) && try_sample_row(field, sample, row_stride, positions, count, samples)) {
      return;
    }
  }
#else
  static_cast<void>(sample);
#endif
  sample_row_strided(field, positions, count, samples);
}

}  // namespace twostream
