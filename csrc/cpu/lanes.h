// SPDX-License-Identifier: BSD-3-Clause
// Neighbouring pixels side by side, with the operators of a float: the templates over `Value` in core/ are written once
// for a float and for these.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace twostream {

#if defined(__AVX2__)
constexpr int32_t lane_count = 8;
#else
constexpr int32_t lane_count = 4;
#endif

struct Lanes {
  typedef float Vector __attribute__((vector_size(lane_count * sizeof(float))));
  typedef Vector Unaligned __attribute__((aligned(sizeof(float)), may_alias));
  Vector vector;

  Lanes() = default;
  Lanes(Vector values) : vector(values) {}
  explicit Lanes(float value) : vector(Vector{} + value) {}  // in every lane
};

struct IntegerLanes {
  typedef int32_t Vector __attribute__((vector_size(lane_count * sizeof(int32_t))));
  Vector vector;
};

inline Lanes load_lanes(const float* from) { return {*reinterpret_cast<const Lanes::Unaligned*>(from)}; }

// The first `count` of them; zeros behind.
inline Lanes load_first_lanes(const float* from, int32_t count) {
  if (count >= lane_count) {
    return load_lanes(from);
  }
  Lanes lanes(0.0f);
  std::memcpy(&lanes, from, count * sizeof(float));
  return lanes;
}

inline void store_lanes(Lanes lanes, float* to) { *reinterpret_cast<Lanes::Unaligned*>(to) = lanes.vector; }

inline Lanes operator+(Lanes a, Lanes b) { return {a.vector + b.vector}; }
inline Lanes operator-(Lanes a, Lanes b) { return {a.vector - b.vector}; }
inline Lanes operator*(Lanes a, Lanes b) { return {a.vector * b.vector}; }
inline Lanes operator/(Lanes a, Lanes b) { return {a.vector / b.vector}; }
inline Lanes operator-(Lanes a) { return {-a.vector}; }
// As those of floats: the second where one is NaN. (Of the choice, the compiler makes a comparison and a slow blend.)
inline Lanes lower(Lanes a, Lanes b) {
#if defined(__AVX2__)
  return {_mm256_min_ps(a.vector, b.vector)};
#else
  return {a.vector < b.vector ? a.vector : b.vector};
#endif
}

// The first where one is NaN.
inline Lanes upper(Lanes a, Lanes b) {
#if defined(__AVX2__)
  return {_mm256_max_ps(b.vector, a.vector)};
#else
  return {a.vector < b.vector ? b.vector : a.vector};
#endif
}

inline Lanes multiply_add(Lanes a, Lanes b, Lanes c) {
#if defined(__AVX2__) && defined(__FMA__)
  return {_mm256_fmadd_ps(a.vector, b.vector, c.vector)};
#else
  for (int32_t lane = 0; lane < lane_count; ++lane) {
    c.vector[lane] = fmaf(a.vector[lane], b.vector[lane], c.vector[lane]);
  }
  return c;
#endif
}

inline Lanes square_root(Lanes values) {
#if defined(__AVX2__)
  return {_mm256_sqrt_ps(values.vector)};
#elif defined(__SSE2__)
  return {_mm_sqrt_ps(values.vector)};
#else
  for (int32_t lane = 0; lane < lane_count; ++lane) {
    values.vector[lane] = sqrtf(values.vector[lane]);
  }
  return values;
#endif
}

inline Lanes floor_of(Lanes values) {
#if defined(__AVX2__)
  return {_mm256_floor_ps(values.vector)};
#else
  for (int32_t lane = 0; lane < lane_count; ++lane) {
    values.vector[lane] = floorf(values.vector[lane]);
  }
  return values;
#endif
}

// 1 / value, or 0 where the value is `least` or below it.
inline Lanes inverse_above(Lanes values, float least) {
  return {values.vector > least ? 1.0f / values.vector : Lanes::Vector{}};
}

inline IntegerLanes to_integers(Lanes lanes) { return {__builtin_convertvector(lanes.vector, IntegerLanes::Vector)}; }

// The first `count` lanes; zeros in the others.
inline IntegerLanes first_lanes(IntegerLanes lanes, int32_t count) {
  for (int32_t lane = count; lane < lane_count; ++lane) {
    lanes.vector[lane] = 0;
  }
  return lanes;
}

inline int64_t sum_of(IntegerLanes lanes) {
  int64_t sum = 0;
  for (int32_t lane = 0; lane < lane_count; ++lane) {
    sum += lanes.vector[lane];
  }
  return sum;
}

}  // namespace twostream
