// SPDX-License-Identifier: BSD-3-Clause
// Where the ten windows of the test protocol lie.
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "twostream/ten_crop_windows.h"

namespace twostream {

TWOSTREAM_HD int32_t last_position(int64_t extent, int32_t window) {
  const int64_t last = extent > window ? extent - window : 0;  // of a negative extent, 64 bits may not hold it
  return static_cast<int32_t>(last < INT32_MAX ? last : INT32_MAX);
}

TWOSTREAM_HD void place_ten_crop(const twostream_ten_crop_windows_args& args, int64_t sample) {
  const int32_t bottom = last_position(args.sizes[sample * 2], args.height);
  const int32_t right = last_position(args.sizes[sample * 2 + 1], args.width);
  for (int crop = 0; crop < 10; ++crop) {
    const int place = crop % 5;
    int32_t* window = args.windows + (sample * 10 + crop) * 3;
    window[0] = place == 4 ? bottom / 2 : (place < 2 ? 0 : bottom);
    window[1] = place == 4 ? right / 2 : (place % 2 == 0 ? 0 : right);
    window[2] = crop < 5 ? 0 : 1;
  }
}

}  // namespace twostream
