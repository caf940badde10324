// SPDX-License-Identifier: BSD-3-Clause
// A field sampled bilinearly at a row of positions: core/trajectory_stack.h's sample_at for many pixels at once.
//
// What costs time is fetching the four neighbours, so each layout has its own way to fetch them, eight positions at a
// time. Interleaved, x and y of two neighbours are one word: 32 bits of bytes, 64 of halves (16-bit floats), 128 of
// floats. Planar, a word holds two neighbours of one component, and of bytes two more. Everything else takes the scalar
// definition.
// A word never reaches past its row: near the right border it starts further left and the fraction or a shift makes up
// for that. A neighbour of weight 0 adds exactly nothing among bytes; among floats it may be NaN, and is masked.
#pragma once

#include <cstring>
#include <type_traits>

#include "core/trajectory_stack.h"
#include "cpu/shuffle.h"

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
__m256i load_words(const T* data, const uint32_t* offsets) {
  const auto word = [&](int lane) {
    int32_t bits;
    memcpy(&bits, data + offsets[lane], sizeof(bits));
    return bits;
  };
  return _mm256_setr_epi32(word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7));
}

// Eight 64-bit words, as their lower and their upper halves.
struct WordPairs {
  __m256 first;
  __m256 second;
};

template <typename T>
WordPairs load_pairs(const T* data, const uint32_t* offsets) {
  const auto word = [&](int lane) {
    double bits;
    memcpy(&bits, data + offsets[lane], sizeof(bits));
    return bits;
  };
  const __m256 p0145 = _mm256_castpd_ps(_mm256_setr_pd(word(0), word(1), word(4), word(5)));
  const __m256 p2367 = _mm256_castpd_ps(_mm256_setr_pd(word(2), word(3), word(6), word(7)));
  return {_mm256_shuffle_ps(p0145, p2367, _MM_SHUFFLE(2, 0, 2, 0)),
          _mm256_shuffle_ps(p0145, p2367, _MM_SHUFFLE(3, 1, 3, 1))};
}

// Eight halves, each in the lower 16 bits of its lane.
template <typename T>
__m256 floats_of_halves(__m256i halves) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(halves, 16));
  } else {
    return _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1)));
  }
}

template <typename T>
__m256 lower_halves(__m256i words) {
  return floats_of_halves<T>(_mm256_and_si256(words, _mm256_set1_epi32(0xffff)));
}

template <typename T>
__m256 upper_halves(__m256i words) {
  return floats_of_halves<T>(_mm256_srli_epi32(words, 16));
}

// Two neighbours of each of eight positions, for both components.
struct Neighbours {
  __m256 left_x;
  __m256 right_x;
  __m256 left_y;
  __m256 right_y;
};

// Floats: the word starts one pixel early at the last column, and a right neighbour of weight 0 is the left one.
struct FloatChoice {
  __m256 moved;
  __m256 between;

  FloatChoice(__m256 x, __m256i first, __m256 fraction)
      : moved(_mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_cvttps_epi32(x), first))),
        between(_mm256_cmp_ps(fraction, _mm256_setzero_ps(), _CMP_GT_OQ)) {}

  void choose(__m256 first, __m256 second, __m256& left, __m256& right) const {
    left = _mm256_blendv_ps(first, second, moved);
    right = _mm256_blendv_ps(left, second, between);
  }
};

// A layout says at which column the word for a position starts, counts offsets in `pixel_step`s, and takes the word
// apart. For bytes, `fraction` is what is left of the coordinate beyond that column, 1 at the last column.
struct InterleavedBytes {
  static constexpr int pixel_step = 2;
  static constexpr bool fraction_from_start = true;
  const uint8_t* data;
  int32_t last_start;

  static __m256 byte_of(__m256i words, int index) {
    const __m256i moved = index == 0 ? words : _mm256_srli_epi32(words, 8 * index);
    return _mm256_cvtepi32_ps(index == 3 ? moved : _mm256_and_si256(moved, _mm256_set1_epi32(0xff)));
  }

  Neighbours fetch(const uint32_t* offsets, __m256 /*x*/, __m256 /*fraction*/) const {
    const __m256i words = load_words(data, offsets);
    return {byte_of(words, 0), byte_of(words, 2), byte_of(words, 1), byte_of(words, 3)};
  }
};

struct PlanarBytes {
  static constexpr int pixel_step = 1;
  static constexpr bool fraction_from_start = false;
  const uint8_t* data;
  int32_t last_start;
  int64_t component_stride;

  // The byte `shift` bits up, and the one after it, which is 0 past the word: its weight is then 0.
  static void bytes_of(__m256i words, __m256i shift, __m256& left, __m256& right) {
    const __m256i mask = _mm256_set1_epi32(0xff);
    const __m256i moved = _mm256_srlv_epi32(words, shift);
    left = _mm256_cvtepi32_ps(_mm256_and_si256(moved, mask));
    right = _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(moved, 8), mask));
  }

  Neighbours fetch(const uint32_t* offsets, __m256 x, __m256 /*fraction*/) const {
    const __m256i past = _mm256_sub_epi32(_mm256_cvttps_epi32(x), _mm256_set1_epi32(last_start));
    const __m256i shift = _mm256_slli_epi32(_mm256_max_epi32(past, _mm256_setzero_si256()), 3);
    Neighbours neighbours;
    bytes_of(load_words(data, offsets), shift, neighbours.left_x, neighbours.right_x);
    bytes_of(load_words(data + component_stride, offsets), shift, neighbours.left_y, neighbours.right_y);
    return neighbours;
  }
};

struct InterleavedFloats {
  static constexpr int pixel_step = 2;
  static constexpr bool fraction_from_start = false;
  const float* data;
  int32_t last_start;

  Neighbours fetch(const uint32_t* offsets, __m256 x, __m256 fraction) const {
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
    const FloatChoice choice(x, _mm256_set1_epi32(last_start), fraction);
    Neighbours neighbours;
    choice.choose(low(left01, left23), low(right01, right23), neighbours.left_x, neighbours.right_x);
    choice.choose(high(left01, left23), high(right01, right23), neighbours.left_y, neighbours.right_y);
    return neighbours;
  }
};

struct PlanarFloats {
  static constexpr int pixel_step = 1;
  static constexpr bool fraction_from_start = false;
  const float* data;
  int32_t last_start;
  int64_t component_stride;

  static void component(const float* data, const uint32_t* offsets, const FloatChoice& choice, __m256& left,
                        __m256& right) {
    const WordPairs words = load_pairs(data, offsets);
    choice.choose(words.first, words.second, left, right);
  }

  Neighbours fetch(const uint32_t* offsets, __m256 x, __m256 fraction) const {
    const FloatChoice choice(x, _mm256_set1_epi32(last_start), fraction);
    Neighbours neighbours;
    component(data, offsets, choice, neighbours.left_x, neighbours.right_x);
    component(data + component_stride, offsets, choice, neighbours.left_y, neighbours.right_y);
    return neighbours;
  }
};

template <typename T>
struct InterleavedHalves {
  static constexpr int pixel_step = 2;
  static constexpr bool fraction_from_start = false;
  const T* data;
  int32_t last_start;

  Neighbours fetch(const uint32_t* offsets, __m256 x, __m256 fraction) const {
    const FloatChoice choice(x, _mm256_set1_epi32(last_start), fraction);
    const WordPairs words = load_pairs(data, offsets);
    const __m256i first = _mm256_castps_si256(words.first), second = _mm256_castps_si256(words.second);
    Neighbours neighbours;
    choice.choose(lower_halves<T>(first), lower_halves<T>(second), neighbours.left_x, neighbours.right_x);
    choice.choose(upper_halves<T>(first), upper_halves<T>(second), neighbours.left_y, neighbours.right_y);
    return neighbours;
  }
};

template <typename T>
struct PlanarHalves {
  static constexpr int pixel_step = 1;
  static constexpr bool fraction_from_start = false;
  const T* data;
  int32_t last_start;
  int64_t component_stride;

  Neighbours fetch(const uint32_t* offsets, __m256 x, __m256 fraction) const {
    const FloatChoice choice(x, _mm256_set1_epi32(last_start), fraction);
    const __m256i words_x = load_words(data, offsets), words_y = load_words(data + component_stride, offsets);
    Neighbours neighbours;
    choice.choose(lower_halves<T>(words_x), upper_halves<T>(words_x), neighbours.left_x, neighbours.right_x);
    choice.choose(lower_halves<T>(words_y), upper_halves<T>(words_y), neighbours.left_y, neighbours.right_y);
    return neighbours;
  }
};

// Element offsets of the words for the upper and the lower row of each position: computed ahead of the loads, which
// then wait for nothing.
struct WordOffsets {
  alignas(32) uint32_t top[tile_pixels];
  alignas(32) uint32_t bottom[tile_pixels];
};

template <typename Layout>
void place_words(const Layout& layout, int32_t row_stride, const Vector2Row& positions, int32_t count,
                 WordOffsets& offsets) {
  const __m256i stride = _mm256_set1_epi32(row_stride);
  for (int32_t pixel = 0; pixel < count; pixel += sample_group) {
    const __m256 y = _mm256_loadu_ps(positions.y + pixel);
    const __m256i row = _mm256_cvttps_epi32(y);
    const __m256 between = _mm256_cmp_ps(y, _mm256_cvtepi32_ps(row), _CMP_GT_OQ);
    __m256i start = _mm256_min_epi32(_mm256_cvttps_epi32(_mm256_loadu_ps(positions.x + pixel)),
                                     _mm256_set1_epi32(layout.last_start));
    start = Layout::pixel_step == 2 ? _mm256_add_epi32(start, start) : start;
    const __m256i top = _mm256_add_epi32(_mm256_mullo_epi32(row, stride), start);
    const __m256i below = _mm256_and_si256(_mm256_castps_si256(between), stride);
    _mm256_store_si256(reinterpret_cast<__m256i*>(offsets.top + pixel), top);
    _mm256_store_si256(reinterpret_cast<__m256i*>(offsets.bottom + pixel), _mm256_add_epi32(top, below));
  }
}

template <typename Layout>
void sample_row_fast(const Layout& layout, int32_t row_stride, const Vector2Row& positions, int32_t count,
                     const Vector2Row& samples) {
  WordOffsets offsets;
  place_words(layout, row_stride, positions, count, offsets);
  const __m256i last_start = _mm256_set1_epi32(layout.last_start);
  for (int32_t pixel = 0; pixel < count; pixel += sample_group) {
    const __m256 x = _mm256_loadu_ps(positions.x + pixel);
    const __m256 y = _mm256_loadu_ps(positions.y + pixel);
    const __m256i column = _mm256_cvttps_epi32(x);
    const __m256i from = Layout::fraction_from_start ? _mm256_min_epi32(column, last_start) : column;
    const __m256 fraction_x = _mm256_sub_ps(x, _mm256_cvtepi32_ps(from));
    const __m256 fraction_y = _mm256_sub_ps(y, _mm256_cvtepi32_ps(_mm256_cvttps_epi32(y)));
    const Neighbours top = layout.fetch(offsets.top + pixel, x, fraction_x);
    const Neighbours bottom = layout.fetch(offsets.bottom + pixel, x, fraction_x);
    _mm256_storeu_ps(samples.x + pixel,
                     interpolate8(interpolate8(top.left_x, top.right_x, fraction_x),
                                  interpolate8(bottom.left_x, bottom.right_x, fraction_x), fraction_y));
    _mm256_storeu_ps(samples.y + pixel,
                     interpolate8(interpolate8(top.left_y, top.right_y, fraction_x),
                                  interpolate8(bottom.left_y, bottom.right_y, fraction_x), fraction_y));
  }
}

template <typename In>
struct Layouts {
  using Interleaved = InterleavedHalves<In>;
  using Planar = PlanarHalves<In>;
  static constexpr int32_t planar_word = 2;  // pixels
};
template <>
struct Layouts<uint8_t> {
  using Interleaved = InterleavedBytes;
  using Planar = PlanarBytes;
  static constexpr int32_t planar_word = 4;
};
template <>
struct Layouts<float> {
  using Interleaved = InterleavedFloats;
  using Planar = PlanarFloats;
  static constexpr int32_t planar_word = 2;
};

// False if there is no fast way for these strides.
template <typename In>
bool try_sample_row(const StridedField<In>& field, const twostream_sample& sample, const Vector2Row& positions,
                    int32_t count, const Vector2Row& samples) {
  using Interleaved = typename Layouts<In>::Interleaved;
  using Planar = typename Layouts<In>::Planar;
  constexpr int32_t planar_word = Layouts<In>::planar_word;
  if (!has_small_offsets(sample)) {
    return false;
  }
  const auto row_stride = static_cast<int32_t>(sample.height > 1 ? sample.row_stride : 0);
  if (field.component_stride == 1 && field.column_stride == 2 && sample.width >= 2) {
    sample_row_fast(Interleaved{field.data, sample.width - 2}, row_stride, positions, count, samples);
    return true;
  }
  if (field.column_stride == 1 && sample.width >= planar_word) {
    sample_row_fast(Planar{field.data, sample.width - planar_word, field.component_stride}, row_stride, positions,
                    count, samples);
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
  if (try_sample_row(field, sample, positions, count, samples)) {
    return;
  }
#else
  static_cast<void>(sample);
#endif
  sample_row_strided(field, positions, count, samples);
}

}  // namespace twostream
