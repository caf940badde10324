// SPDX-License-Identifier: BSD-3-Clause
// Sums and ranges of one row. Sums are exact for codes and taken in double for floats.
#pragma once

#include "core/statistics.h"
#include "cpu/convert.h"

namespace twostream {

#if defined(__AVX2__)
inline double sum_lanes(__m256d lanes) {
  const __m128d halves = _mm_add_pd(_mm256_castpd256_pd128(lanes), _mm256_extractf128_pd(lanes, 1));
  return _mm_cvtsd_f64(_mm_add_sd(halves, _mm_unpackhi_pd(halves, halves)));
}

inline uint64_t sum_lanes(__m256i sums) {
  alignas(32) uint64_t lanes[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), sums);
  return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

inline void add_lanes(__m256 values, __m256d& low, __m256d& high) {
  low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm256_castps256_ps128(values)));
  high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm256_extractf128_ps(values, 1)));
}
#endif

// Every value counts, also NaN: a spoiled field says so in its mean.
inline double sum_row(const uint8_t* row, int32_t count) {
  uint64_t sum = 0;
  int32_t done = 0;
#if defined(__AVX2__)
  __m256i sums = _mm256_setzero_si256();
  for (; done + 32 <= count; done += 32) {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + done));
    sums = _mm256_add_epi64(sums, _mm256_sad_epu8(codes, _mm256_setzero_si256()));
  }
  sum = sum_lanes(sums);
#endif
  for (; done < count; ++done) {
    sum += row[done];
  }
  return static_cast<double>(sum);
}

template <typename T>
double sum_row(const T* row, int32_t count) {
  double sum = 0.0;
  int32_t done = 0;
#if defined(__AVX2__)
  __m256d lanes[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd()};
  for (; done + 16 <= count; done += 16) {
    add_lanes(load_eight<false>(row + done), lanes[0], lanes[1]);
    add_lanes(load_eight<false>(row + done + 8), lanes[2], lanes[3]);
  }
  sum = sum_lanes(_mm256_add_pd(_mm256_add_pd(lanes[0], lanes[1]), _mm256_add_pd(lanes[2], lanes[3])));
#endif
  for (; done < count; ++done) {
    sum += static_cast<double>(to_float(row[done]));
  }
  return sum;
}

// Adds the values of interleaved (x, y) pixels to sums[0] and sums[1], without splitting them first.
inline void add_pairs(const uint8_t* pixels, int64_t count, double* sums) {
  uint64_t x = 0;
  uint64_t y = 0;
  int64_t done = 0;
#if defined(__AVX2__)
  __m256i first = _mm256_setzero_si256();
  __m256i second = _mm256_setzero_si256();
  for (; done + 16 <= count; done += 16) {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pixels + 2 * done));
    const __m256i even = _mm256_and_si256(codes, _mm256_set1_epi16(0xff));
    first = _mm256_add_epi64(first, _mm256_sad_epu8(even, _mm256_setzero_si256()));
    second = _mm256_add_epi64(second, _mm256_sad_epu8(_mm256_srli_epi16(codes, 8), _mm256_setzero_si256()));
  }
  x = sum_lanes(first);
  y = sum_lanes(second);
#endif
  for (; done < count; ++done) {
    x += pixels[2 * done];
    y += pixels[2 * done + 1];
  }
  sums[0] += static_cast<double>(x);
  sums[1] += static_cast<double>(y);
}

template <typename T>
void add_pairs(const T* pixels, int64_t count, double* sums) {
  int64_t done = 0;
#if defined(__AVX2__)
  __m256d lanes[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd()};
  for (; done + 8 <= count; done += 8) {
    add_lanes(load_eight<false>(pixels + 2 * done), lanes[0], lanes[1]);
    add_lanes(load_eight<false>(pixels + 2 * done + 8), lanes[2], lanes[3]);
  }
  const __m256d both = _mm256_add_pd(_mm256_add_pd(lanes[0], lanes[1]), _mm256_add_pd(lanes[2], lanes[3]));
  const __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(both), _mm256_extractf128_pd(both, 1));
  sums[0] += _mm_cvtsd_f64(pair);
  sums[1] += _mm_cvtsd_f64(_mm_unpackhi_pd(pair, pair));
#endif
  for (; done < count; ++done) {
    sums[0] += static_cast<double>(to_float(pixels[2 * done]));
    sums[1] += static_cast<double>(to_float(pixels[2 * done + 1]));
  }
}

// Adds the finite values of a row.
template <typename T>
void add_row(Statistics& statistics, const T* row, int32_t count) {
  int32_t done = 0;
#if defined(__AVX2__)
  __m256 lowest = _mm256_set1_ps(statistics.lowest);
  __m256 highest = _mm256_set1_ps(statistics.highest);
  __m256d low = _mm256_setzero_pd();
  __m256d high = _mm256_setzero_pd();
  __m256i counts = _mm256_setzero_si256();
  for (; done + 8 <= count; done += 8) {
    const __m256 values = load_eight<false>(row + done);
    // Nothing but a finite value differs from itself by 0.
    const __m256 finite = _mm256_cmp_ps(_mm256_sub_ps(values, values), _mm256_setzero_ps(), _CMP_EQ_OQ);
    lowest = _mm256_min_ps(lowest, _mm256_blendv_ps(lowest, values, finite));
    highest = _mm256_max_ps(highest, _mm256_blendv_ps(highest, values, finite));
    add_lanes(_mm256_and_ps(values, finite), low, high);
    counts = _mm256_sub_epi32(counts, _mm256_castps_si256(finite));
  }
  alignas(32) float lows[8];
  alignas(32) float highs[8];
  alignas(32) int32_t found[8];
  _mm256_store_ps(lows, lowest);
  _mm256_store_ps(highs, highest);
  _mm256_store_si256(reinterpret_cast<__m256i*>(found), counts);
  for (int lane = 0; lane < 8; ++lane) {
    statistics.lowest = lows[lane] < statistics.lowest ? lows[lane] : statistics.lowest;
    statistics.highest = highs[lane] > statistics.highest ? highs[lane] : statistics.highest;
    statistics.count += found[lane];
  }
  statistics.sum += sum_lanes(_mm256_add_pd(low, high));
#endif
  for (; done < count; ++done) {
    add(statistics, to_float(row[done]));
  }
}

}  // namespace twostream
