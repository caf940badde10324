// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/ten_crop_windows.h"

#include "core/ten_crop_windows.h"

using namespace twostream;

int twostream_ten_crop_windows_cpu(const twostream_ten_crop_windows_args* args) {
  if (args->size < 0 || args->height < 1 || args->width < 1) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  for (int64_t sample = 0; sample < args->size; ++sample) {
    place_ten_crop(*args, sample);
  }
  return TWOSTREAM_SUCCESS;
}
