// SPDX-License-Identifier: BSD-3-Clause
// The arithmetic of local response normalisation: x / base^beta, base = k + alpha / size * sum of squares.
#pragma once

#include <cmath>

#include "core/host_device.h"
#include "core/validate.h"
#include "twostream/local_response_norm.h"

namespace twostream {

// The window of channel c holds c - below .. c + above; c lies in the windows of c - above .. c + below.
struct ResponseNorm {
  int64_t channels;
  int64_t below;
  int64_t above;
  float scale;  // alpha / size
  float k;
  float gradient_factor;  // 2 alpha beta / size

  TWOSTREAM_HD float base(float squares) const { return fmaf(scale, squares, k); }
  TWOSTREAM_HD bool holds(int64_t channel) const { return channel >= 0 && channel < channels; }
};

inline bool is_empty(const twostream_response_shape& shape) {
  return shape.samples == 0 || shape.channels == 0 || shape.pixels == 0;
}

inline ResponseNorm response_norm(const twostream_response_shape& shape,
                                  const twostream_response_constants& constants) {
  const int64_t most = shape.channels - 1;  // a window reaches no further, however large
  const int64_t below = constants.size / 2;
  const int64_t above = (constants.size - 1) / 2;
  const double scale = static_cast<double>(constants.alpha) / static_cast<double>(constants.size);
  return {shape.channels,
          below < most ? below : most,
          above < most ? above : most,
          static_cast<float>(scale),
          constants.k,
          static_cast<float>(2.0 * scale * static_cast<double>(constants.beta))};
}

// value / base^beta. The device takes the roots of its special-function unit, whose error is two units in the last
// place: exact roots and a division would take longer than the memory.
struct ThreeQuarters {
  TWOSTREAM_HD float divide(float value, float base) const {
#if defined(__CUDA_ARCH__)
    const float inverse_root = rsqrtf(base);
    float inverse_fourth_root;
    asm("sqrt.approx.f32 %0, %1;" : "=f"(inverse_fourth_root) : "f"(inverse_root));
    return value * (inverse_root * inverse_fourth_root);
#else
    const float root = sqrtf(base);
    return value / (root * sqrtf(root));
#endif
  }
};

struct Half {
  TWOSTREAM_HD float divide(float value, float base) const { return value / sqrtf(base); }
};

struct One {
  TWOSTREAM_HD float divide(float value, float base) const { return value / base; }
};

struct AnyPower {
  float beta;
  TWOSTREAM_HD float divide(float value, float base) const { return value / powf(base, beta); }
};

// Calls `body` with the cheapest of the four for this beta.
template <typename Body>
void with_power(float beta, Body&& body) {
  if (beta == 0.75f) {
    body(ThreeQuarters{});
  } else if (beta == 0.5f) {
    body(Half{});
  } else if (beta == 1.0f) {
    body(One{});
  } else {
    body(AnyPower{beta});
  }
}

}  // namespace twostream
