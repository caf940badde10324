// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/random_windows.h"

#include "core/random_windows.h"
#include "core/validate.h"

using namespace twostream;

int twostream_random_windows_cpu(const twostream_random_windows_args* args) {
  if (!valid(*args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  for (int64_t sample = 0; sample < args->size; ++sample) {
    draw_window(*args, sample);
  }
  return TWOSTREAM_SUCCESS;
}
