// SPDX-License-Identifier: BSD-3-Clause
// Changes of order within a row in the first-level cache: components split, channels interleaved. The
// byte-wise ones are shuffled by hand under AVX2, where the compiler's own code is several times slower.
#pragma once

#include <cstdint>
#include <type_traits>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace twostream {

constexpr int32_t tile_pixels = 256;
constexpr int32_t tile_channels = 32;  // as many as are written together; more channels go in several turns

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

inline int32_t split_vectors(const float* from, int32_t count, float (*to)[tile_pixels],
                             std::integral_constant<int, 2>) {
  int32_t done = 0;
  for (; done + 8 <= count; done += 8) {
    const __m256 first = _mm256_loadu_ps(from + 2 * done);
    const __m256 second = _mm256_loadu_ps(from + 2 * done + 8);
    const __m256d x = _mm256_castps_pd(_mm256_shuffle_ps(first, second, 0x88));
    const __m256d y = _mm256_castps_pd(_mm256_shuffle_ps(first, second, 0xdd));
    _mm256_storeu_ps(to[0] + done, _mm256_castpd_ps(_mm256_permute4x64_pd(x, 0xd8)));
    _mm256_storeu_ps(to[1] + done, _mm256_castpd_ps(_mm256_permute4x64_pd(y, 0xd8)));
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

// Other types and components: none by hand.
template <typename T, int components>
int32_t split_vectors(const T*, int32_t, T (*)[tile_pixels], std::integral_constant<int, components>) {
  return 0;
}
#endif

// Interleaved pixels to one row a component.
template <int components, typename T>
void split_components(const T* from, int32_t count, T (*to)[tile_pixels]) {
  int32_t done = 0;
#if defined(__AVX2__)
  done = split_vectors(from, count, to, std::integral_constant<int, components>{});
#endif
  for (; done < count; ++done) {
    for (int component = 0; component < components; ++component) {
      to[component][done] = from[done * components + component];
    }
  }
}

// Two rows to interleaved (x, y) pixels.
template <typename T>
void join_components(const T* x, const T* y, int32_t count, T* to) {
  int32_t done = 0;
#if defined(__AVX2__)
  constexpr int32_t lanes = 32 / static_cast<int32_t>(sizeof(T));
  for (; done + lanes <= count; done += lanes) {
    const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + done));
    const __m256i second = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(y + done));
    __m256i low, high;  // each holds a part of either half of a register
    if constexpr (sizeof(T) == 1) {
      low = _mm256_unpacklo_epi8(first, second);
      high = _mm256_unpackhi_epi8(first, second);
    } else if constexpr (sizeof(T) == 2) {
      low = _mm256_unpacklo_epi16(first, second);
      high = _mm256_unpackhi_epi16(first, second);
    } else {
      low = _mm256_unpacklo_epi32(first, second);
      high = _mm256_unpackhi_epi32(first, second);
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 2 * done), _mm256_permute2x128_si256(low, high, 0x20));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 2 * done + lanes), _mm256_permute2x128_si256(low, high, 0x31));
  }
#endif
  for (; done < count; ++done) {
    to[2 * done] = x[done];
    to[2 * done + 1] = y[done];
  }
}

#if defined(__AVX2__)
// Eight pixels of eight channels: rows of channels become rows of pixels.
inline void transpose_eight(__m256 (&block)[8]) {
  __m256 pairs[8];
  for (int32_t each = 0; each < 8; each += 2) {
    pairs[each] = _mm256_unpacklo_ps(block[each], block[each + 1]);
    pairs[each + 1] = _mm256_unpackhi_ps(block[each], block[each + 1]);
  }
  __m256 fours[8];
  for (int32_t half = 0; half < 8; half += 4) {
    for (int32_t each = 0; each < 2; ++each) {
      const __m256 first = pairs[half + each];
      const __m256 second = pairs[half + each + 2];
      fours[half + 2 * each] = _mm256_shuffle_ps(first, second, 0x44);
      fours[half + 2 * each + 1] = _mm256_shuffle_ps(first, second, 0xee);
    }
  }
  for (int32_t each = 0; each < 4; ++each) {
    block[each] = _mm256_permute2f128_ps(fours[each], fours[each + 4], 0x20);
    block[each + 4] = _mm256_permute2f128_ps(fours[each], fours[each + 4], 0x31);
  }
}
#endif

// Turns blocks of eight pixels and eight channels; returns the channels done, of the first count / 8 * 8 pixels.
inline int32_t interleave_eights([[maybe_unused]] const float (*from)[tile_pixels], [[maybe_unused]] int32_t channels,
                                 [[maybe_unused]] int32_t count, [[maybe_unused]] float* to) {
#if defined(__AVX2__)
  for (int32_t column = 0; column + 8 <= count; column += 8) {
    for (int32_t channel = 0; channel + 8 <= channels; channel += 8) {
      __m256 block[8];
      for (int32_t each = 0; each < 8; ++each) {
        block[each] = _mm256_loadu_ps(from[channel + each] + column);
      }
      transpose_eight(block);
      for (int32_t each = 0; each < 8; ++each) {
        _mm256_storeu_ps(to + (column + each) * channels + channel, block[each]);
      }
    }
  }
  return channels / 8 * 8;
#else
  return 0;
#endif
}

// Likewise of four and four, from channel `first` on.
inline int32_t interleave_fours([[maybe_unused]] const float (*from)[tile_pixels], int32_t first,
                                [[maybe_unused]] int32_t channels, [[maybe_unused]] int32_t count,
                                [[maybe_unused]] float* to) {
#if defined(__SSE2__)
  for (int32_t column = 0; column + 4 <= count; column += 4) {
    for (int32_t channel = first; channel + 4 <= channels; channel += 4) {
      __m128 block[4];
      for (int32_t each = 0; each < 4; ++each) {
        block[each] = _mm_loadu_ps(from[channel + each] + column);
      }
      _MM_TRANSPOSE4_PS(block[0], block[1], block[2], block[3]);
      for (int32_t each = 0; each < 4; ++each) {
        _mm_storeu_ps(to + (column + each) * channels + channel, block[each]);
      }
    }
  }
  return channels / 4 * 4;
#else
  return first;
#endif
}

// One row a channel to channels-last pixels.
inline void interleave_channels(const float (*from)[tile_pixels], int32_t channels, int32_t count, float* to) {
  const int32_t whole = count / 8 * 8;
  const int32_t done = interleave_fours(from, interleave_eights(from, channels, whole, to), channels, whole, to);
  for (int32_t column = 0; column < count; ++column) {
    for (int32_t channel = column < whole ? done : 0; channel < channels; ++channel) {
      to[column * channels + channel] = from[channel][column];
    }
  }
}

}  // namespace twostream
