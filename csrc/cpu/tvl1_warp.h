// SPDX-License-Identifier: BSD-3-Clause
// A warp: the next frame as seen through the present flow, and the data terms that follow from it. The twin is
// cuda/tvl1_warp.cuh.
#pragma once

#include <cstring>

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#endif

#include "core/tvl1_flow.h"
#include "cpu/lanes.h"
#include "cpu/tvl1_rows.h"
#include "cpu/tvl1_slots.h"

namespace twostream {

static void fill_vectors_row(const float* image, const Tvl1Level& level, int32_t y, const PixelVectors& vectors) {
  const auto row = [&](int32_t place) {
    return image + static_cast<int64_t>(within(place, level.height)) * level.width;
  };
  const float* here = row(y);
  const float* above = row(y - 1);
  const float* below = row(y + 1);
  for (int32_t x = 0; x < level.width; ++x) {
    float* pixel = vectors.at(y, x);
    pixel[0] = here[x];
    pixel[1] = centred_difference(here[within(x - 1, level.width)], here[within(x + 1, level.width)]);
    pixel[2] = centred_difference(above[x], below[x]);
    pixel[3] = 0.0f;
  }
  for (int32_t outside = 1; outside <= cubic_margin; ++outside) {
    std::memset(vectors.at(y, -outside), 0, 4 * sizeof(float));
    std::memset(vectors.at(y, level.width - 1 + outside), 0, 4 * sizeof(float));
  }
}

static void fill_vectors(const float* image, const Tvl1Level& level, const PixelVectors& vectors,
                         const Sharing& sharing) {
  sharing.each_row(level, [&](int32_t y) { fill_vectors_row(image, level, y, vectors); });
  const int64_t bytes = vectors.stride * static_cast<int64_t>(sizeof(float));
  for (int32_t outside = 1; outside <= cubic_margin; ++outside) {
    std::memset(vectors.at(-outside, -cubic_margin), 0, bytes);
    std::memset(vectors.at(level.height - 1 + outside, -cubic_margin), 0, bytes);
  }
}

// The four pixels of one axis for each of a vector's pixels.
struct Taps {
  int32_t first[lane_count];
  float weights[4][lane_count];
};

static Taps taps_at(Lanes position, int32_t length) {
  const CubicTaps<Lanes> lanes = cubic_taps(position, static_cast<float>(length));
  Taps taps;
  const IntegerLanes first = to_integers(lanes.first);
  std::memcpy(taps.first, &first, sizeof(taps.first));
  std::memcpy(taps.weights, lanes.weights, sizeof(taps.weights));
  return taps;
}

#if defined(__AVX2__) && defined(__FMA__)
// Intensity, its differences and a zero at one pixel's position, of the even columns and of the odd ones.
static __m256 sample_by_twos(const PixelVectors& vectors, const Taps& vertical, const Taps& horizontal, int32_t lane) {
  const float* row = vectors.at(vertical.first[lane], horizontal.first[lane]);
  const auto weight = [&](const Taps& taps, int tap) { return _mm256_broadcast_ss(&taps.weights[tap][lane]); };
  const __m256 down[4] = {weight(vertical, 0), weight(vertical, 1), weight(vertical, 2), weight(vertical, 3)};
  const auto sum_of_rows = [&](const float* from) {  // of two columns
    __m256 sum = _mm256_mul_ps(down[0], _mm256_loadu_ps(from));
    sum = _mm256_fmadd_ps(down[1], _mm256_loadu_ps(from + vectors.stride), sum);
    sum = _mm256_fmadd_ps(down[2], _mm256_loadu_ps(from + 2 * vectors.stride), sum);
    return _mm256_fmadd_ps(down[3], _mm256_loadu_ps(from + 3 * vectors.stride), sum);
  };
  const auto across = [&](int tap) {
    return _mm256_blend_ps(weight(horizontal, tap), weight(horizontal, tap + 1), 0xf0);
  };
  return _mm256_fmadd_ps(across(2), sum_of_rows(row + 8), _mm256_mul_ps(across(0), sum_of_rows(row)));
}

static Intensity<Lanes> sample(const PixelVectors& vectors, const Taps& vertical, const Taps& horizontal) {
  __m256 both[lane_count];
  for (int32_t lane = 0; lane < lane_count; ++lane) {
    both[lane] = sample_by_twos(vectors, vertical, horizontal, lane);
  }
  __m256 sampled[4];  // of pixel i in one half, of pixel i + 4 in the other
  for (int32_t lane = 0; lane < 4; ++lane) {
    sampled[lane] = _mm256_add_ps(_mm256_permute2f128_ps(both[lane], both[lane + 4], 0x20),
                                  _mm256_permute2f128_ps(both[lane], both[lane + 4], 0x31));
  }
  const __m256 first = _mm256_unpacklo_ps(sampled[0], sampled[1]);  // intensities and differences along x of both
  const __m256 second = _mm256_unpacklo_ps(sampled[2], sampled[3]);
  const __m256 along_y =
      _mm256_shuffle_ps(_mm256_unpackhi_ps(sampled[0], sampled[1]), _mm256_unpackhi_ps(sampled[2], sampled[3]), 0x44);
  return {_mm256_shuffle_ps(first, second, 0x44), _mm256_shuffle_ps(first, second, 0xee), along_y};
}
#else
// The next frame at the positions of a vector of pixels.
static Intensity<Lanes> sample(const PixelVectors& vectors, const Taps& vertical, const Taps& horizontal) {
  Lanes sampled[3];
  for (int32_t lane = 0; lane < lane_count; ++lane) {
    const float* row = vectors.at(vertical.first[lane], horizontal.first[lane]);
    float across[4];
    float down[4];
    for (int tap = 0; tap < 4; ++tap) {
      across[tap] = horizontal.weights[tap][lane];
      down[tap] = vertical.weights[tap][lane];
    }
    for (int value = 0; value < 3; ++value) {
      const auto sum_of_rows = [&](const float* from) {
        return weighted(down, from[0], from[vectors.stride], from[2 * vectors.stride], from[3 * vectors.stride]);
      };
      sampled[value].vector[lane] = weighted_by_twos(across, sum_of_rows(row + value), sum_of_rows(row + 4 + value),
                                                     sum_of_rows(row + 8 + value), sum_of_rows(row + 12 + value));
    }
  }
  return {sampled[0], sampled[1], sampled[2]};
}
#endif

static void warp_row(const float* previous, const PixelVectors& vectors, const Variables& variables, int32_t y) {
  const Tvl1Level& level = variables.level;
  Lanes places;
  for (int32_t lane = 0; lane < lane_count; ++lane) {
    places.vector[lane] = static_cast<float>(lane);
  }
  for (int32_t x = 0; x < level.width; x += lane_count) {
    const Pair<Lanes> flow{load_lanes(variables.row(flow_x, y) + x), load_lanes(variables.row(flow_y, y) + x)};
    const Taps vertical = taps_at(Lanes(static_cast<float>(y)) + flow.y, level.height);
    const Taps horizontal = taps_at(Lanes(static_cast<float>(x)) + places + flow.x, level.width);
    const Intensity<Lanes> warped = sample(vectors, vertical, horizontal);
    const Lanes intensity = load_first_lanes(previous + x, level.width - x);
    const DataTerm<Lanes> term = data_term(warped, flow, intensity);
    store_lanes(term.x, variables.row(term_x, y) + x);
    store_lanes(term.y, variables.row(term_y, y) + x);
    store_lanes(term.constant, variables.row(term_constant, y) + x);
    store_lanes(term.inverse, variables.row(term_inverse, y) + x);
  }
}

}  // namespace twostream
