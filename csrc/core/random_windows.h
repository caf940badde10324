// SPDX-License-Identifier: BSD-3-Clause
// Philox4x32-10 (Salmon et al., SC 2011, "Parallel random numbers: as easy as 1, 2, 3") and a window drawn from it.
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "twostream/random_windows.h"

namespace twostream {

struct Philox {
  uint32_t numbers[4];
};

TWOSTREAM_HD Philox philox(uint64_t counter, uint64_t key) {
  uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32), c2 = 0, c3 = 0;
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = static_cast<uint64_t>(0xD2511F53u) * c0;
    const uint64_t product1 = static_cast<uint64_t>(0xCD9E8D57u) * c2;
    c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(product1);
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(product0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Uniform over the extent - window + 1 positions; 0 where the window does not fit.
TWOSTREAM_HD int32_t draw_position(uint32_t number, int64_t extent, int32_t window) {
  if (extent <= window) {  // before the difference, which 64 bits may not hold if the extent is negative
    return 0;
  }
  const int64_t positions = extent - window + 1;
  const uint64_t bounded = static_cast<uint64_t>(positions < INT32_MAX ? positions : INT32_MAX);
  return static_cast<int32_t>((number * bounded) >> 32);
}

TWOSTREAM_HD void draw_window(const twostream_random_windows_args& args, int64_t sample) {
  const Philox random = philox(args.offset + static_cast<uint64_t>(sample), args.seed);
  int32_t* window = args.windows + sample * 3;
  window[0] = draw_position(random.numbers[0], args.sizes[sample * 2], args.height);
  window[1] = draw_position(random.numbers[1], args.sizes[sample * 2 + 1], args.width);
  // In double, 2^32 * flip is exact, so that probability 1 always flips and 0 never does.
  window[2] = static_cast<double>(random.numbers[2]) < static_cast<double>(args.flip) * 4294967296.0 ? 1 : 0;
}

}  // namespace twostream
