// SPDX-License-Identifier: BSD-3-Clause
// The arithmetic of local response normalisation: x / base^beta, base = k + alpha / size * sum of squares.
#pragma once

#include <cmath>

#include "core/host_device.h"
#include "core/types.h"
#include "twostream/local_response_norm.h"

namespace twostream {

// The window of channel c holds c - below .. c + above; c lies in the windows of c - above .. c + below.
struct ResponseNorm {
  int64_t channels;
  int64_t below;
  int64_t above;
  float scale;  // alpha / size
  float beta;
  float k;
  float gradient_factor;  // 2 alpha beta / size

  TWOSTREAM_HD float base(float squares) const { return fmaf(scale, squares, k); }
};

// base^beta; 0.75, the power of AlexNet and CNN-M, by roots, which take a fraction of the time.
TWOSTREAM_HD float power_of(float base, float beta) {
  if (beta == 0.75f) {
    const float root = sqrtf(base);
    return root * sqrtf(root);
  }
  return powf(base, beta);
}

// The window and the power of AlexNet and CNN-M: both backends have loops for them, and plain ones for all others.
constexpr int64_t usual_size = 5;
constexpr int usual_reach = 2;  // of the window, to both sides

inline bool is_usual(const twostream_response_constants& constants) {
  return constants.size == usual_size && constants.beta == 0.75f;
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
          constants.beta,
          constants.k,
          static_cast<float>(2.0 * scale * static_cast<double>(constants.beta))};
}

// From one channel of a pixel to the next, and where channel 0 of a pixel lies.
TWOSTREAM_HD int64_t channel_stride(const twostream_response_shape& shape) {
  return shape.channels_last != 0 ? 1 : shape.pixels;
}
TWOSTREAM_HD int64_t pixel_offset(const twostream_response_shape& shape, int64_t sample, int64_t pixel) {
  return sample * shape.pixels * shape.channels + pixel * (shape.channels_last != 0 ? shape.channels : 1);
}

// Calls body(a value of the tensors' type, norm), whose status it returns, unless there is nothing to do.
template <typename Body>
int with_response(const twostream_response_shape& shape, const twostream_response_constants& constants,
                  const Body& body) {
  int status = TWOSTREAM_SUCCESS;
  if (shape.samples > 0 && shape.channels > 0 && shape.pixels > 0) {
    with_float_type(shape.dtype, [&](auto type) { status = body(type, response_norm(shape, constants)); });
  }
  return status;
}

}  // namespace twostream
