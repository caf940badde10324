// SPDX-License-Identifier: BSD-3-Clause
// Rows of one type to rows of another, with the same bits as core/types.h.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "core/affine.h"
#include "core/types.h"

namespace twostream {

#if defined(__AVX2__)
// Eight values as floats; mirrored, in the opposite order.
template <bool mirror>
__m256 load_eight(const float* from) {
  const __m256 values = _mm256_loadu_ps(from);
  return mirror ? _mm256_permutevar8x32_ps(values, _mm256_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0)) : values;
}

template <bool mirror>
__m256 load_eight(const uint8_t* from) {
  __m128i codes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  if (mirror) {
    codes = _mm_shuffle_epi8(codes, _mm_setr_epi8(7, 6, 5, 4, 3, 2, 1, 0, -1, -1, -1, -1, -1, -1, -1, -1));
  }
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes));
}

template <bool mirror>
__m128i load_eight_halves(const void* from) {
  const __m128i halves = _mm_loadu_si128(static_cast<const __m128i*>(from));
  return mirror ? _mm_shuffle_epi8(halves, _mm_setr_epi8(14, 15, 12, 13, 10, 11, 8, 9, 6, 7, 4, 5, 2, 3, 0, 1))
                : halves;
}

template <bool mirror>
__m256 load_eight(const Float16* from) {
  return _mm256_cvtph_ps(load_eight_halves<mirror>(from));
}

template <bool mirror>
__m256 load_eight(const BFloat16* from) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_eight_halves<mirror>(from)), 16));
}

// Streaming stores bypass the cache; their target is aligned to what is stored.
template <bool stream>
void store_bits(__m128i bits, void* to) {
  if (stream) {
    _mm_stream_si128(static_cast<__m128i*>(to), bits);
  } else {
    _mm_storeu_si128(static_cast<__m128i*>(to), bits);
  }
}

template <bool stream>
void store_bits(__m256i bits, void* to) {
  if (stream) {
    _mm256_stream_si256(static_cast<__m256i*>(to), bits);
  } else {
    _mm256_storeu_si256(static_cast<__m256i*>(to), bits);
  }
}

template <bool stream = false>
void store_eight(__m256 values, float* to) {
  store_bits<stream>(_mm256_castps_si256(values), to);
}

template <bool stream = false>
void store_eight(__m256 values, Float16* to) {
  // The instruction would keep a NaN's payload: give it the one of from_float first.
  const __m256 sign = _mm256_and_ps(values, _mm256_set1_ps(-0.0f));
  const __m256 nan = _mm256_or_ps(sign, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000)));
  const __m256 known = _mm256_blendv_ps(values, nan, _mm256_cmp_ps(values, values, _CMP_UNORD_Q));
  store_bits<stream>(_mm256_cvtps_ph(known, _MM_FROUND_TO_NEAREST_INT), to);
}

// The rounded bits in the upper half of each lane; the lower half is of no use.
inline __m256i round_to_bfloat16(__m256 values) {
  const __m256i bits = _mm256_castps_si256(values);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  return _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
}

template <bool stream = false>
void store_eight(__m256 values, BFloat16* to) {
  const __m256i unordered = _mm256_castps_si256(_mm256_cmp_ps(values, values, _CMP_UNORD_Q));
  const __m256i high =
      _mm256_blendv_epi8(_mm256_srli_epi32(round_to_bfloat16(values), 16), _mm256_set1_epi32(0x7fc0), unordered);
  store_bits<stream>(_mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1)), to);
}

// Codes to bfloat16 is the pair most used and the one bound by arithmetic. Sixteen at a time, even and odd codes apart,
// so that a blend puts the halves together; there is no NaN to look for. Returns how many it did.
template <bool mirror, bool stream>
int64_t convert_finite(const Affine& affine, const uint8_t* from, int64_t count, BFloat16* to) {
  const __m256 scale = _mm256_set1_ps(affine.scale);
  const __m256 offset = _mm256_set1_ps(affine.offset);
  const __m128i opposite = _mm_setr_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  int64_t done = 0;
  for (; done + 16 <= count; done += 16) {
    __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(mirror ? from + count - done - 16 : from + done));
    codes = mirror ? _mm_shuffle_epi8(codes, opposite) : codes;
    const __m256i pairs = _mm256_cvtepu8_epi16(codes);
    const __m256 even = _mm256_cvtepi32_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(0xffff)));
    const __m256 odd = _mm256_cvtepi32_ps(_mm256_srli_epi32(pairs, 16));
    const __m256i low = round_to_bfloat16(_mm256_fmadd_ps(even, scale, offset));
    const __m256i high = round_to_bfloat16(_mm256_fmadd_ps(odd, scale, offset));
    store_bits<stream>(_mm256_blend_epi16(_mm256_srli_epi32(low, 16), high, 0xaa), to + done);
  }
  return done;
}
#endif

template <bool mirror, bool stream, typename In, typename Out>
void convert_row(const Affine& affine, const In* __restrict from, int64_t count, Out* __restrict to) {
  int64_t done = 0;
#if defined(__AVX2__)
  if constexpr (std::is_same_v<In, uint8_t> && std::is_same_v<Out, BFloat16>) {
    if (std::isfinite(affine.scale * 255.0f) && std::isfinite(affine.offset)) {
      done = convert_finite<mirror, stream>(affine, from, count, to);
    }
  }
  const __m256 scale = _mm256_set1_ps(affine.scale);
  const __m256 offset = _mm256_set1_ps(affine.offset);
  for (; done + 8 <= count; done += 8) {
    const __m256 values = load_eight<mirror>(mirror ? from + count - done - 8 : from + done);
    store_eight<stream>(_mm256_fmadd_ps(values, scale, offset), to + done);
  }
#endif
  for (; done < count; ++done) {
    to[done] = from_float<Out>(apply(affine, to_float(from[mirror ? count - 1 - done : done])));
  }
}

// to[i] = from[i] * scale + offset, rounded once to float and then to the type of `to`; mirrored, from[count - 1 - i].
template <bool stream = false, typename In, typename Out>
void convert_row(const Affine& affine, bool mirror, const In* from, int64_t count, Out* to) {
  if (mirror) {
    convert_row<true, stream>(affine, from, count, to);
  } else {
    convert_row<false, stream>(affine, from, count, to);
  }
}

template <bool mirror, typename In>
void convert_row(const RowAffine& affine, int32_t column, const In* __restrict from, int32_t count,
                 float* __restrict to) {
  int32_t done = 0;
#if defined(__AVX2__)
  const __m256 scale = _mm256_set1_ps(affine.scale);
  const __m256 along_x = _mm256_set1_ps(affine.along_x);
  const __m256 offset = _mm256_set1_ps(affine.offset);
  const __m256i numbers =
      mirror ? _mm256_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0) : _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  for (; done + 8 <= count; done += 8) {
    const int32_t first = mirror ? count - done - 8 : done;
    const __m256 x = _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_set1_epi32(column + first), numbers));
    const __m256 values = load_eight<mirror>(from + first);
    store_eight(_mm256_fmadd_ps(values, scale, _mm256_fmadd_ps(along_x, x, offset)), to + done);
  }
#endif
  for (; done < count; ++done) {
    const int32_t place = mirror ? count - 1 - done : done;
    to[done] = apply(at_column(affine, static_cast<float>(column + place)), to_float(from[place]));
  }
}

// The same where the offset changes from column to column; from[0] is that of `column`.
template <typename In>
void convert_row(const RowAffine& affine, int32_t column, bool mirror, const In* from, int32_t count, float* to) {
  if (mirror) {
    convert_row<true>(affine, column, from, count, to);
  } else {
    convert_row<false>(affine, column, from, count, to);
  }
}

// to[i] = from[i]
template <typename In, typename Out>
void convert_row(const In* __restrict from, int64_t count, Out* __restrict to) {
  int64_t done = 0;
#if defined(__AVX2__)
  for (; done + 8 <= count; done += 8) {
    store_eight(load_eight<false>(from + done), to + done);
  }
#endif
  for (; done < count; ++done) {
    to[done] = from_float<Out>(to_float(from[done]));
  }
}

}  // namespace twostream
