// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/ten_crop_windows.h"

#include "core/ten_crop_windows.h"
#include "core/validate.h"

using namespace twostream;

int twostream_ten_crop_windows_cpu(const twostream_ten_crop_windows_args* args) {
  if (!valid(*args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  for (int64_t sample = 0; sample < args->size; ++sample) {
    place_ten_crop(*args, sample);
  }
  return TWOSTREAM_SUCCESS;
}
