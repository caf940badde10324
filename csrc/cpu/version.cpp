// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/version.h"

#include "twostream/common.h"

const char* twostream_version(void) { return TWOSTREAM_VERSION; }
