// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/random_windows.h"

#include "core/random_windows.h"

using namespace twostream;

int twostream_random_windows_cpu(const twostream_random_windows_args* args) {
  if (args->size < 0 || args->height < 1 || args->width < 1) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  for (int64_t sample = 0; sample < args->size; ++sample) {
    draw_window(*args, sample);
  }
  return TWOSTREAM_SUCCESS;
}
