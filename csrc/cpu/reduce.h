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

// Adds the finite ones among `count` values, of alternating components, to the statistics.
template <int components, typename T>
void add_values(const T* values, int64_t count, Statistics* statistics) {
  int64_t done = 0;
#if defined(__AVX2__)
  __m256 lowest = _mm256_set1_ps(FLT_MAX);
  __m256 highest = _mm256_set1_ps(-FLT_MAX);
  __m256i counts = _mm256_setzero_si256();
  DoubleSums totals;
  for (; done + 16 <= count; done += 16) {
    __m256 finite[2];
    for (int half = 0; half < 2; ++half) {
      const __m256 each = load_eight<false>(values + done + 8 * half);
      // Nothing but a finite value differs from itself by 0.
      const __m256 known = _mm256_cmp_ps(_mm256_sub_ps(each, each), _mm256_setzero_ps(), _CMP_EQ_OQ);
      lowest = _mm256_min_ps(lowest, _mm256_blendv_ps(_mm256_set1_ps(FLT_MAX), each, known));
      highest = _mm256_max_ps(highest, _mm256_blendv_ps(_mm256_set1_ps(-FLT_MAX), each, known));
      counts = _mm256_sub_epi32(counts, _mm256_castps_si256(known));
      finite[half] = _mm256_and_ps(each, known);
    }
    totals.add(finite[0], finite[1]);
  }
  alignas(32) float lows[8];
  alignas(32) float highs[8];
  alignas(32) int32_t found[8];
  _mm256_store_ps(lows, lowest);
  _mm256_store_ps(highs, highest);
  _mm256_store_si256(reinterpret_cast<__m256i*>(found), counts);
  double sums[components] = {};
  totals.add_to<components>(sums);
  for (int lane = 0; lane < 8; ++lane) {
    const double sum = lane < components ? sums[lane] : 0.0;
    merge(statistics[lane % components], Statistics{lows[lane], highs[lane], sum, found[lane]});
  }
#endif
  for (; done < count; ++done) {
    add(statistics[done % components], to_float(values[done]));
  }
}

}  // namespace twostream
