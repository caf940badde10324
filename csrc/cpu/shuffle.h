// SPDX-License-Identifier: BSD-3-Clause
// Changes of order within a row in the first-level cache: mirrored, components split, channels interleaved. The
// byte-wise ones are shuffled by hand under AVX2, where the compiler's own code is several times slower.
#pragma once

#include <cstdint>
#include <type_traits>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace twostream {

constexpr int32_t tile_pixels = 256;
constexpr int32_t tile_channels = 32;  // as many as are written together; more channels go in several turns

#if defined(__AVX2__)
// The 32 bytes with their elements of `size` bytes in the opposite order.
template <int size>
inline __m256i reversed(__m256i vector) {
  __m128i order;
  if constexpr (size == 1) {
    order = _mm_setr_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  } else if constexpr (size == 2) {
    order = _mm_setr_epi8(14, 15, 12, 13, 10, 11, 8, 9, 6, 7, 4, 5, 2, 3, 0, 1);
  } else {
    order = _mm_setr_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
  }
  const __m256i halves = _mm256_shuffle_epi8(vector, _mm256_broadcastsi128_si256(order));
  return _mm256_permute2x128_si256(halves, halves, 1);
}
#endif

// to[i] = from[count - 1 - i]
template <typename T>
void reverse_row(const T* from, int32_t count, T* to) {
  int32_t done = 0;
#if defined(__AVX2__)
  constexpr int32_t lanes = 32 / static_cast<int32_t>(sizeof(T));
  for (; done + lanes <= count; done += lanes) {
    const auto* source = reinterpret_cast<const __m256i*>(from + count - done - lanes);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + done), reversed<sizeof(T)>(_mm256_loadu_si256(source)));
  }
#endif
  for (; done < count; ++done) {
    to[done] = from[count - 1 - done];
  }
}

#if defined(__AVX2__)
// Splits as many whole vectors of (x, y) bytes as there are; returns the pixels done.
inline int32_t split_vectors(const uint8_t* from, int32_t count, uint8_t (*to)[tile_pixels],
                             std::integral_constant<int, 2>) {
  const __m256i low = _mm256_set1_epi16(0xff);
  int32_t done = 0;
  for (; done + 32 <= count; done += 32) {
    const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 2 * done));
    const __m256i second = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 2 * done + 32));
    const __m256i x = _mm256_packus_epi16(_mm256_and_si256(first, low), _mm256_and_si256(second, low));
    const __m256i y = _mm256_packus_epi16(_mm256_srli_epi16(first, 8), _mm256_srli_epi16(second, 8));
    // packus works in halves of a register: put the quarters in order
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to[0] + done), _mm256_permute4x64_epi64(x, 0xd8));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to[1] + done), _mm256_permute4x64_epi64(y, 0xd8));
  }
  return done;
}

// Likewise of (r, g, b) bytes: each output vector takes its bytes from three input vectors.
inline int32_t split_vectors(const uint8_t* from, int32_t count, uint8_t (*to)[tile_pixels],
                             std::integral_constant<int, 3>) {
  constexpr char none = -1;
  const __m128i order[3][3] = {
      {_mm_setr_epi8(0, 3, 6, 9, 12, 15, none, none, none, none, none, none, none, none, none, none),
       _mm_setr_epi8(none, none, none, none, none, none, 2, 5, 8, 11, 14, none, none, none, none, none),
       _mm_setr_epi8(none, none, none, none, none, none, none, none, none, none, none, 1, 4, 7, 10, 13)},
      {_mm_setr_epi8(1, 4, 7, 10, 13, none, none, none, none, none, none, none, none, none, none, none),
       _mm_setr_epi8(none, none, none, none, none, 0, 3, 6, 9, 12, 15, none, none, none, none, none),
       _mm_setr_epi8(none, none, none, none, none, none, none, none, none, none, none, 2, 5, 8, 11, 14)},
      {_mm_setr_epi8(2, 5, 8, 11, 14, none, none, none, none, none, none, none, none, none, none, none),
       _mm_setr_epi8(none, none, none, none, none, 1, 4, 7, 10, 13, none, none, none, none, none, none),
       _mm_setr_epi8(none, none, none, none, none, none, none, none, none, none, 0, 3, 6, 9, 12, 15)}};
  int32_t done = 0;
  for (; done + 16 <= count; done += 16) {
    const auto* source = reinterpret_cast<const __m128i*>(from + 3 * done);
    const __m128i input[3] = {_mm_loadu_si128(source), _mm_loadu_si128(source + 1), _mm_loadu_si128(source + 2)};
    for (int component = 0; component < 3; ++component) {
      __m128i bytes = _mm_setzero_si128();
      for (int part = 0; part < 3; ++part) {
        bytes = _mm_or_si128(bytes, _mm_shuffle_epi8(input[part], order[component][part]));
      }
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to[component] + done), bytes);
    }
  }
  return done;
}
#endif

// Interleaved pixels to one row a component.
template <int components, typename T>
void split_components(const T* from, int32_t count, T (*to)[tile_pixels]) {
  int32_t done = 0;
#if defined(__AVX2__)
  if constexpr (sizeof(T) == 1) {
    done = split_vectors(from, count, to, std::integral_constant<int, components>{});
  }
#endif
  for (; done < count; ++done) {
    for (int component = 0; component < components; ++component) {
      to[component][done] = from[done * components + component];
    }
  }
}

// One row a channel to channels-last pixels.
template <typename T>
void interleave_channels(const T (*from)[tile_pixels], int32_t channels, int32_t count, T* to) {
  for (int32_t column = 0; column < count; ++column) {
    for (int32_t channel = 0; channel < channels; ++channel) {
      to[static_cast<int64_t>(column) * channels + channel] = from[channel][column];
    }
  }
}

}  // namespace twostream
