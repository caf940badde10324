// SPDX-License-Identifier: BSD-3-Clause
// Pairs of frames are shared between threads; where there are fewer of them, the rows of large levels are.
#pragma once

#include "core/tvl1_pyramid.h"
#include "cpu/parallel.h"

namespace twostream {

// Each step of an iteration is a meeting of all threads. On smaller levels two gained a seventh of the time, and where
// other processes kept one of them waiting, they took many times as long as one.
constexpr int64_t pixels_worth_sharing = int64_t{1} << 19;

// Whether the threads share the rows of a pair, and of this level.
struct Sharing {
  bool rows;

  bool worth_it(const Tvl1Level& level) const { return rows && level.pixels() >= pixels_worth_sharing; }

  template <typename Body>
  void each_row(const Tvl1Level& level, const Body& body) const {
    if (worth_it(level)) {
      parallel_for(level.height, grain_for(level.width), [&](int64_t y) { body(static_cast<int32_t>(y)); });
    } else {
      for (int32_t y = 0; y < level.height; ++y) {
        body(y);
      }
    }
  }
};

}  // namespace twostream
