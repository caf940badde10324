// SPDX-License-Identifier: BSD-3-Clause
// Sums and ranges of one run of values: of one component, or of two that are interleaved, which need no splitting, as
// each lane of a register meets values of one component alone. Sums are exact for codes and in double for floats.
#pragma once

#include "core/statistics.h"
#include "cpu/convert.h"

namespace twostream {

#if defined(__AVX2__)
inline void add_lanes(__m256 values, __m256d& low, __m256d& high) {
  low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm256_castps256_ps128(values)));
  high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm256_extractf128_ps(values, 1)));
}

// Four chains of additions hide their latency.
struct DoubleSums {
  __m256d lanes[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd()};

  void add(__m256 first, __m256 second) {
    add_lanes(first, lanes[0], lanes[1]);
    add_lanes(second, lanes[2], lanes[3]);
  }
  template <int components>
  void add_to(double* sums) const {
    alignas(32) double total[4];
    _mm256_store_pd(total, _mm256_add_pd(_mm256_add_pd(lanes[0], lanes[1]), _mm256_add_pd(lanes[2], lanes[3])));
    for (int lane = 0; lane < 4; ++lane) {
      sums[lane % components] += total[lane];
    }
  }
};

inline void add_to(__m256i lanes, double& sum) {
  alignas(32) uint64_t total[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(total), lanes);
  sum += static_cast<double>(total[0] + total[1] + total[2] + total[3]);
}
#endif

// Adds `count` values, of alternating components, to the sums. Also NaN counts: a spoiled field says so in its mean.
template <int components>
void add_values(const uint8_t* values, int64_t count, double* sums) {
  int64_t done = 0;
#if defined(__AVX2__)
  const __m256i zero = _mm256_setzero_si256();
  __m256i totals[2] = {zero, zero};
  for (; done + 32 <= count; done += 32) {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + done));
    if (components == 1) {
      totals[0] = _mm256_add_epi64(totals[0], _mm256_sad_epu8(codes, zero));
    } else {
      const __m256i even = _mm256_and_si256(codes, _mm256_set1_epi16(0xff));
      totals[0] = _mm256_add_epi64(totals[0], _mm256_sad_epu8(even, zero));
      totals[1] = _mm256_add_epi64(totals[1], _mm256_sad_epu8(_mm256_srli_epi16(codes, 8), zero));
    }
  }
  for (int component = 0; component < components; ++component) {
    add_to(totals[component], sums[component]);
  }
#endif
  for (; done < count; ++done) {
    sums[done % components] += static_cast<double>(values[done]);
  }
}

template <int components, typename T>
void add_values(const T* values, int64_t count, double* sums) {
  int64_t done = 0;
#if defined(__AVX2__)
  DoubleSums totals;
  for (; done + 16 <= count; done += 16) {
    totals.add(load_eight<false>(values + done), load_eight<false>(values + done + 8));
  }
  totals.add_to<components>(sums);
#endif
  for (; done < count; ++done) {
    sums[done % components] += static_cast<double>(to_float(values[done]));
  }
}

#if defined(__AVX2__)
// Adds a multiple of 16 values, unless one is not finite, which shows in the sum; then nothing is added.
template <int components, typename T>
bool add_finite(const T* values, int64_t count, Statistics* statistics) {
  __m256 lowest[2] = {_mm256_set1_ps(FLT_MAX), _mm256_set1_ps(FLT_MAX)};
  __m256 highest[2] = {_mm256_set1_ps(-FLT_MAX), _mm256_set1_ps(-FLT_MAX)};
  DoubleSums totals;
  for (int64_t done = 0; done < count; done += 16) {
    __m256 each[2];
    for (int half = 0; half < 2; ++half) {
      each[half] = load_eight<false>(values + done + 8 * half);
      lowest[half] = _mm256_min_ps(lowest[half], each[half]);
      highest[half] = _mm256_max_ps(highest[half], each[half]);
    }
    totals.add(each[0], each[1]);
  }
  double sums[components] = {};
  totals.add_to<components>(sums);
  for (const double sum : sums) {
    if (!std::isfinite(sum)) {  // finite floats never sum up to more than a double holds
      return false;
    }
  }
  alignas(32) float lows[8];
  alignas(32) float highs[8];
  _mm256_store_ps(lows, _mm256_min_ps(lowest[0], lowest[1]));
  _mm256_store_ps(highs, _mm256_max_ps(highest[0], highest[1]));
  for (int lane = 0; lane < 8; ++lane) {
    Statistics& own = statistics[lane % components];
    own.lowest = lows[lane] < own.lowest ? lows[lane] : own.lowest;
    own.highest = highs[lane] > own.highest ? highs[lane] : own.highest;
  }
  for (int component = 0; component < components; ++component) {
    statistics[component].sum += sums[component];
    statistics[component].count += count / components;
  }
  return true;
}
#endif

// Adds the finite ones among `count` values, of alternating components, to the statistics.
template <int components, typename T>
void add_values(const T* values, int64_t count, Statistics* statistics) {
  int64_t done = 0;
#if defined(__AVX2__)
  constexpr int64_t most = 4096;  // still in the first-level cache when they must be looked at again
  while (done + 16 <= count) {
    const int64_t left = (count - done) / 16 * 16;
    const int64_t part = left < most ? left : most;
    if (!add_finite<components>(values + done, part, statistics)) {
      for (int64_t place = done; place < done + part; ++place) {
        add(statistics[place % components], to_float(values[place]));
      }
    }
    done += part;
  }
#endif
  for (; done < count; ++done) {
    add(statistics[done % components], to_float(values[done]));
  }
}

}  // namespace twostream
