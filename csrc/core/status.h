// SPDX-License-Identifier: BSD-3-Clause
// Words for the statuses that are our own.
#pragma once

#include "twostream/common.h"

namespace twostream {

inline const char* own_status_string(int status) {
  switch (status) {
    case TWOSTREAM_SUCCESS:
      return "success";
    case TWOSTREAM_INVALID_ARGUMENT:
      return "invalid argument";
    case TWOSTREAM_BUILT_WITHOUT_CUDA:
      return "twostream_ext was built without CUDA; install a wheel with CUDA, or build where nvcc is on PATH";
    default:
      return "unknown status";
  }
}

}  // namespace twostream
