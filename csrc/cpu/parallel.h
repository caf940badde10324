// SPDX-License-Identifier: BSD-3-Clause
// Loops over torch's own threads when torch is in the process, serial otherwise (docs/design.md, law 6).
#pragma once

#include <cstdint>

// Calls `body` on ranges that cover [0, count), each at least `grain` long where possible. `body` must not throw.
void twostream_parallel_ranges(int64_t count, int64_t grain, void (*body)(int64_t begin, int64_t end, void* context),
                               void* context);

namespace twostream {

template <typename Body>
void parallel_for(int64_t count, int64_t grain, const Body& body) {
  const auto call = [](int64_t begin, int64_t end, void* context) {
    const Body& each = *static_cast<const Body*>(context);
    for (int64_t index = begin; index < end; ++index) {
      each(index);
    }
  };
  twostream_parallel_ranges(count, grain, call, const_cast<Body*>(&body));
}

// Below about this many pixels a thread costs more than it brings.
constexpr int64_t pixels_per_thread = 32768;

inline int64_t grain_for(int64_t pixels_per_item) {
  return pixels_per_item >= pixels_per_thread ? 1 : pixels_per_thread / (pixels_per_item > 0 ? pixels_per_item : 1);
}

}  // namespace twostream
